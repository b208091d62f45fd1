//! Running `docker-credential-NAME get` (docker's credential helper protocol): the host on stdin, JSON on stdout.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::config::Commands;
use crate::credentials::Credential;
use crate::{Error, Secret};

/// No answer is longer.
const MAX_OUTPUT: u64 = 1 << 20;

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Asks for the credentials of `server`; `None` when the program has none.
pub(crate) async fn ask(commands: &Commands, name: &str, server: &str) -> Result<Option<Credential>, Error> {
    let program = format!("docker-credential-{name}");
    let fail = |why: String| Error::Credentials { host: server.to_owned(), origin: format!("`{program} get`"), why };
    if name.is_empty() || name.contains('/') {
        return Err(fail("that is not the name of a program".to_owned()));
    }
    let path = find(&commands.path, &program).ok_or_else(|| fail("no such program in PATH".to_owned()))?;
    let run = tokio::time::timeout(commands.timeout, run(&path, server));
    let (code, out, err) = match run.await {
        Err(_) => return Err(fail(format!("no answer within {} s", commands.timeout.as_secs()))),
        Ok(Err(error)) => return Err(fail(error.to_string())),
        Ok(Ok(done)) => done,
    };
    if code != Some(0) {
        let said = format!("{} {}", out.trim(), err.trim());
        // the words that docker itself looks for
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(fail(format!("it failed: {}", one_line(&said))));
    }
    let answer: Answer = serde_json::from_str(&out).map_err(|e| fail(format!("its answer is not understood: {e}")))?;
    let secret = Secret::new(answer.secret);
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credential::IdentityToken(secret),
        _ => Credential::Basic { username: answer.username, password: secret },
    }))
}

fn find(path: &OsStr, program: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let runnable = |p: &Path| p.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    std::env::split_paths(path).filter(|d| d.is_absolute()).map(|d| d.join(program)).find(|p| runnable(p))
}

async fn run(program: &Path, server: &str) -> std::io::Result<(Option<i32>, String, String)> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // one that does not read its input may have ended already: what it says is worth more than the broken pipe
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let (a, b) = tokio::join!(read(stdout, &mut out), read(stderr, &mut err));
    a?;
    b?;
    let status = child.wait().await?;
    Ok((status.code(), String::from_utf8_lossy(&out).into_owned(), String::from_utf8_lossy(&err).into_owned()))
}

async fn read<R: tokio::io::AsyncRead + Unpin>(pipe: Option<R>, into: &mut Vec<u8>) -> std::io::Result<()> {
    if let Some(pipe) = pipe {
        pipe.take(MAX_OUTPUT).read_to_end(into).await?;
    }
    Ok(())
}

fn one_line(text: &str) -> String {
    let visible: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::*;

    async fn asked(script: &str) -> Result<Option<Credential>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker-credential-t");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let commands = Commands { path: dir.path().into(), timeout: Duration::from_secs(3) };
        for _ in 0..20 {
            let answer = ask(&commands, "t", "r.example").await.map_err(|e| e.to_string());
            // another test's fork may still hold the script open for writing
            match answer {
                Err(why) if why.contains("Text file busy") => tokio::time::sleep(Duration::from_millis(20)).await,
                answer => return answer,
            }
        }
        panic!("the script stays busy")
    }

    #[tokio::test]
    async fn a_program_is_asked() {
        let basic = asked(r#"read s; echo "{\"ServerURL\":\"$s\",\"Username\":\"$1@$s\",\"Secret\":\"pw\"}""#).await;
        let expected = Credential::Basic { username: "get@r.example".to_owned(), password: Secret::new("pw") };
        assert_eq!(basic, Ok(Some(expected)));
        let token = asked(r#"echo '{"Username":"<token>","Secret":"t"}'"#).await;
        assert_eq!(token, Ok(Some(Credential::IdentityToken(Secret::new("t")))));
    }

    #[tokio::test]
    async fn having_none_is_no_failure_but_failing_is() {
        assert_eq!(asked("echo credentials not found in native keychain; exit 1").await, Ok(None));
        let why = asked("echo the keychain is locked >&2; exit 1").await.unwrap_err();
        assert!(why.contains("the keychain is locked"), "{why}");
        let why = asked("exec sleep 30").await.unwrap_err();
        assert!(why.contains("no answer within 3 s"), "{why}");
        let absent = ask(&Commands::default(), "none", "r.example").await;
        assert!(absent.unwrap_err().to_string().contains("no such program"));
    }
}
