//! What a file that is no bundle may be by its name: ferry writes others beside bundles.

use std::path::Path;

/// What to do with it, for people.
pub(crate) fn not_a_bundle(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = |base: &str| path.with_file_name(base).display().to_string();
    let recovery = name.rsplit_once(".recovery-").filter(|(_, rest)| rest.bytes().all(|byte| byte.is_ascii_digit()));
    if let Some((base, _)) = recovery {
        let base = beside(base);
        return format!(
            "it is called as a recovery file of `{base}`: name that; `ferry repair {base}` finds the recovery files beside it"
        );
    }
    let kinds = [
        (".sha256", "the list of checksums of its volumes"),
        (".minisig", "a signature"),
        (".sig", "a signature"),
        (".report.json", "the report of its build"),
    ];
    match kinds.iter().find_map(|(end, what)| Some((name.strip_suffix(end)?, what))) {
        // a key's id may stand before the end
        Some((_, &what @ "a signature")) => format!("it is called as {what} beside a bundle: name the bundle"),
        Some((base, what)) => {
            format!("it is called as what stands beside the bundle `{}`, {what}: name the bundle", beside(base))
        }
        None => "check the path; `ferry bundle` makes bundles".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_beside_bundles_is_known_by_its_name() {
        for (name, expected) in [
            ("d/shop.tar.recovery-001", "`ferry repair d/shop.tar`"),
            ("shop.tar.sha256", "`shop.tar`, the list of checksums"),
            ("shop.tar.0123.minisig", "a signature beside a bundle"),
            ("shop.tar.report.json", "`shop.tar`, the report"),
            ("shop.recovery-plan", "check the path"),
            ("notes.txt", "check the path"),
        ] {
            let hint = not_a_bundle(Path::new(name));
            assert!(hint.contains(expected), "{name}: {hint}");
        }
    }
}
