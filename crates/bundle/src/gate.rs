//! The coverage gate on the near side: what the carried YAML asks for must be carried, because here it can still be mended.

use ferry_content::Problems;
use ferry_image::{Ignore, Reference, SetRule};
use ferry_rewrite::{Confidence, check};

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
    for yaml in texts {
        let name = yaml.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let checked = check(&yaml.text, &name, carried, rules, ignore);
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
