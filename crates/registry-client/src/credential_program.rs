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
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ran = tokio::time::timeout(commands.timeout, run(&path, server, &mut out, &mut err)).await;
    let code = match ran {
        Err(_) => return Err(fail(saying(format!("no answer within {} s", commands.timeout.as_secs()), &[&err]))),
        Ok(Err(error)) => return Err(fail(error.to_string())),
        Ok(Ok(code)) => code,
    };
    if code != Some(0) {
        // the words that docker itself looks for
        if String::from_utf8_lossy(&[out.as_slice(), &err].concat()).contains("credentials not found") {
            return Ok(None);
        }
        let ended = code.map_or_else(|| "a signal ended it".to_owned(), |code| format!("it failed with code {code}"));
        return Err(fail(saying(ended, &[&out, &err])));
    }
    // serde's own words would quote the value, which may be a password
    let answer: Answer = serde_json::from_slice(&out).map_err(|e| {
        let place = format!("line {}, column {}", e.line(), e.column());
        fail(saying(format!("its answer is not what the protocol says ({place})"), &[&err]))
    })?;
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

/// Runs it; what it writes stands in `out` and `err`, even when it does not come to an end.
async fn run(program: &Path, server: &str, out: &mut Vec<u8>, err: &mut Vec<u8>) -> std::io::Result<Option<i32>> {
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
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (a, b) = tokio::join!(read(stdout, out), read(stderr, err));
    a?;
    b?;
    Ok(child.wait().await?.code())
}

async fn read<R: tokio::io::AsyncRead + Unpin>(pipe: Option<R>, into: &mut Vec<u8>) -> std::io::Result<()> {
    if let Some(pipe) = pipe {
        pipe.take(MAX_OUTPUT).read_to_end(into).await?;
    }
    Ok(())
}

/// `what`, and what the program said to it.
fn saying(what: String, said: &[&[u8]]) -> String {
    let said: Vec<String> =
        said.iter().map(|s| one_line(&String::from_utf8_lossy(s))).filter(|s| !s.is_empty()).collect();
    if said.is_empty() { what } else { format!("{what}: {}", said.join(" ")) }
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
        let commands = Commands { path: dir.path().into(), timeout: Duration::from_secs(1) };
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
    async fn having_none_is_no_failure() {
        for script in
            ["echo credentials not found in native keychain; exit 1", "echo 'error: credentials not found' >&2; exit 1"]
        {
            assert_eq!(asked(script).await, Ok(None), "{script}");
        }
        let absent = ask(&Commands::default(), "none", "r.example").await;
        assert!(absent.unwrap_err().to_string().contains("no such program"));
    }

    #[tokio::test]
    async fn what_a_failing_program_says_is_told() {
        for (script, expected) in [
            ("echo the keychain is locked >&2; exit 3", "it failed with code 3: the keychain is locked"),
            ("echo out; printf 'err\\n\\033[1mbold' >&2; exit 1", "it failed with code 1: out err [1mbold"),
            ("exit 1", "it failed with code 1"),
            ("kill -9 $$", "a signal ended it"),
            // what it leaves behind holds the pipes open: nobody waits for that
            ("echo insert your card >&2; sleep 5 & wait", "no answer within 1 s: insert your card"),
            ("exec sleep 30", "no answer within 1 s"),
        ] {
            let why = asked(script).await.unwrap_err();
            assert!(why.ends_with(&format!("`docker-credential-t get`: {expected}")), "{script}: {why}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_an_error_that_shows_no_secret() {
        for script in [
            "echo hunter2",
            r#"echo '"hunter2"'"#,
            r#"echo '{"Username":"u","Secret":["hunter2"]}'"#,
            r#"echo '{"Username":"u","Password":"hunter2"}'"#,
            "true",
        ] {
            let why = asked(script).await.unwrap_err();
            assert!(why.contains("not what the protocol says") && !why.contains("hunter2"), "{script}: {why}");
        }
        assert!(asked("head -c 2000000 /dev/zero").await.is_err(), "endless");
        let why = asked("echo deprecated >&2; echo garbage").await.unwrap_err();
        assert!(why.ends_with("(line 1, column 1): deprecated"), "{why}");
    }
}
