//! The coverage gate on the near side: what the carried YAML asks for must be carried, because here it can still be mended.

use std::path::Path;

use ferry_content::{Problems, charts};
use ferry_image::{Ignore, Reference, SetRule};
use ferry_rewrite::{Around, Charts, Confidence, check_around};

use crate::Error;
use crate::carry::Yaml;

/// Checks every carried text. Certain references that are not carried are problems; weaker ones, and documents that cannot be read
/// (templates are carried too), come back as warnings. `strict` false turns all of them into warnings.
pub(crate) fn pass(
    texts: &[Yaml],
    carried: &dyn Fn(&Reference) -> bool,
    rules: &[SetRule],
    ignore: &[Ignore],
    strict: bool,
) -> Result<Vec<String>, Problems> {
    let mut problems = Problems::default();
    let mut warnings = Vec::new();
    let mut report = |subject: String, error: Error, fails: bool| {
        if fails && strict { problems.add(subject, error) } else { warnings.push(format!("{subject}: {error}")) }
    };
    let mut known = charts::Known::default();
    for yaml in texts {
        let name = yaml.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let around = around(&mut known, &yaml.path);
        let checked = check_around(&yaml.text, &name, &around, carried, rules, ignore);
        let at = |line: usize| format!("{}:{line}", yaml.path.display());
        for finding in checked.uncarried {
            let certain = finding.confidence == Confidence::Certain;
            report(at(finding.line), Error::Uncarried { reference: finding.value, path: finding.path }, certain);
        }
        for refused in checked.refused {
            report(at(refused.line), Error::Unreadable { why: refused.reason }, false);
        }
    }
    problems.or(warnings)
}

/// What the chart that `file` belongs to makes of it; nothing where there is none.
pub(crate) fn around(known: &mut charts::Known<Charts>, file: &Path) -> Around {
    let found = known.of(file, |texts| Charts::of(texts.iter(), &[]));
    found.map(|(charts, below)| charts.around(&below)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ferry_content::Kind;

    use super::*;

    const POD: &str =
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n    - image: quay.io/a/b:1\n    - image: nginx:1.27\n";

    fn texts(text: &str) -> Vec<Yaml> {
        vec![Yaml { member: "yaml/pod.yaml".to_owned(), path: PathBuf::from("k8s/pod.yaml"), text: text.to_owned() }]
    }

    fn only_nginx(reference: &Reference) -> bool {
        reference.repository() == "docker.io/library/nginx"
    }

    #[test]
    fn what_is_not_carried_is_named_with_file_and_line() {
        let problems = pass(&texts(POD), &only_nginx, &[], &[], true).expect_err("not carried");
        let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("k8s/pod.yaml:5: `quay.io/a/b:1` is not carried"), "{}", found[0]);
        assert_eq!(problems.kind(), Kind::Missing);
    }

    #[test]
    fn it_may_be_ignored_or_waved_through() {
        let ignore = [Ignore { image: "quay.io/a/*".to_owned(), reason: "there already".to_owned() }];
        assert_eq!(pass(&texts(POD), &only_nginx, &[], &ignore, true).expect("ignored"), Vec::<String>::new());
        assert_eq!(pass(&texts(POD), &only_nginx, &[], &[], false).expect("waved through").len(), 1);
        assert_eq!(pass(&texts(POD), &|_| true, &[], &[], true).expect("carried"), Vec::<String>::new());
    }
}
