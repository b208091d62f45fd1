//! What templates say of an empty tag. Their text is looked at and not run: only the widespread forms are understood, and whatever
//! else a template does with `appVersion` counts as not understood.

/// Actions (`{{ … }}`) that name both a value and the chart's `appVersion`.
#[derive(Debug, Default)]
pub(super) struct Templates {
    actions: Vec<String>,
}

/// What becomes of `appVersion`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Transform {
    /// `printf "v%s"`, or nothing between two empty texts.
    Around(String, String),
    /// `trimPrefix "v"`.
    Trim(String),
}

impl Transform {
    pub(super) fn apply(&self, version: &str) -> String {
        match self {
            Self::Around(before, after) => format!("{before}{version}{after}"),
            Self::Trim(prefix) => version.strip_prefix(prefix.as_str()).unwrap_or(version).to_owned(),
        }
    }
}

const VERSION: &str = ".Chart.AppVersion";

impl Templates {
    pub(super) fn add(&mut self, text: &str) {
        let mut rest = text;
        while let Some((_, after)) = rest.split_once("{{") {
            let Some((action, next)) = after.split_once("}}") else { return };
            if action.contains(VERSION) && action.contains(".Values.") {
                self.actions.push(action.split_whitespace().collect::<Vec<_>>().join(" "));
            }
            rest = next;
        }
    }

    /// What the tag at `path` (`$.image.tag`) is when it is empty, where all templates that speak of it agree.
    pub(super) fn default_of(&self, path: &str) -> Option<Transform> {
        let value = format!(".Values.{}", path.strip_prefix("$.")?);
        let mut found = self.actions.iter().filter(|action| names(action, &value)).map(|action| transform(action));
        let first = found.next()??;
        found.all(|other| other.as_ref() == Some(&first)).then_some(first)
    }
}

/// Whether `value` stands in `action` as a whole.
fn names(action: &str, value: &str) -> bool {
    action.match_indices(value).any(|(at, _)| {
        let next = action[at + value.len()..].chars().next();
        !next.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-'))
    })
}

/// `default .Chart.AppVersion`, `coalesce …`, `or …`, with `printf` or `trimPrefix` before it.
fn transform(action: &str) -> Option<Transform> {
    if !["default ", "coalesce ", "or "].iter().any(|word| action.contains(word)) {
        return None;
    }
    let (before, after) = action.split_once(VERSION)?;
    if after.contains(VERSION) {
        return None;
    }
    let piped = after.trim_start().trim_start_matches(')').trim_start().strip_prefix('|').map(str::trim_start);
    match piped {
        None => {}
        Some(next) if ["quote", "toString", "squote", "default"].iter().any(|word| next.starts_with(word)) => {}
        Some(next) => {
            let prefix = next.strip_prefix("trimPrefix \"")?.split_once('"')?.0;
            return Some(Transform::Trim(prefix.to_owned()));
        }
    }
    let before = before.trim_end_matches('$').trim_end();
    let Some(quoted) = before.strip_suffix('"') else { return Some(Transform::Around(String::new(), String::new())) };
    let (before, literal) = quoted.rsplit_once('"')?;
    match before.trim_end().rsplit([' ', '(']).next() {
        Some("printf") => {
            let (start, end) = literal.split_once("%s")?;
            (!end.contains('%') && !start.contains('%')).then(|| Transform::Around(start.to_owned(), end.to_owned()))
        }
        Some("trimPrefix") => Some(Transform::Trim(literal.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widespread_forms_are_understood() {
        for (template, version, tag) in [
            (
                "image: \"{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}\"",
                "1.2",
                Some("1.2"),
            ),
            ("{{- default $.Chart.AppVersion $.Values.image.tag -}}", "1.2", Some("1.2")),
            ("{{ coalesce .Values.image.tag .Values.global.tag .Chart.AppVersion }}", "1.2", Some("1.2")),
            ("{{ .Values.image.tag | default (printf \"v%s\" .Chart.AppVersion) }}", "1.2", Some("v1.2")),
            (
                "{{ .Values.image.tag | default ( printf \"%s-slim\" .Chart.AppVersion ) | quote }}",
                "1.2",
                Some("1.2-slim"),
            ),
            ("{{ .Values.image.tag | default (trimPrefix \"v\" .Chart.AppVersion) }}", "v1.2", Some("1.2")),
            ("{{ .Values.image.tag | default (.Chart.AppVersion | trimPrefix \"v\") }}", "v1.2", Some("1.2")),
            ("{{ .Values.image.tag\n    | default\n    .Chart.AppVersion }}", "1.2", Some("1.2")),
            // not understood, or of something else
            ("{{ .Values.image.tag | default (.Chart.AppVersion | replace \"+\" \"_\") }}", "1.2", None),
            ("{{ .Values.image.tagged | default .Chart.AppVersion }}", "1.2", None),
            ("{{ .Values.other.image.tag | default .Chart.AppVersion }}", "1.2", None),
            ("{{ .Values.image.tag }} {{ .Chart.AppVersion }}", "1.2", None),
            ("{{ printf \"%s:%s\" .Values.image.tag .Chart.AppVersion }}", "1.2", None),
            ("{{ .Values.image.tag | default .Chart.AppVersion", "1.2", None),
        ] {
            let mut templates = Templates::default();
            templates.add(template);
            let found = templates.default_of("$.image.tag").map(|t| t.apply(version));
            assert_eq!(found.as_deref(), tag, "{template}");
        }
    }

    #[test]
    fn templates_that_disagree_say_nothing() {
        let mut templates = Templates::default();
        templates.add("{{ .Values.image.tag | default .Chart.AppVersion }}");
        templates.add("{{ .Values.image.tag | default (printf \"v%s\" .Chart.AppVersion) }}");
        assert_eq!(templates.default_of("$.image.tag"), None);
    }
}
