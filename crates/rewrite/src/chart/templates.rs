//! What templates say of an empty tag. Their text is looked at and not run: an action (`{{ … }}`) says something when all of it is
//! understood and the bytes beside it are too. Whatever else a template does with `appVersion` counts as not understood.

/// Actions that name both a value and the chart's `appVersion`.
#[derive(Debug, Default)]
pub(super) struct Templates {
    actions: Vec<Action>,
}

#[derive(Debug)]
struct Action {
    /// Without braces and their `-`.
    text: String,
    /// None where it is not clear what it is a part of.
    place: Option<Place>,
}

/// What stands directly before and after an action that writes a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    before: String,
    after: String,
    /// Whether `quote` may stand at the end: after `tag: `.
    bare: bool,
}

const VERSION: &str = ".Chart.AppVersion";

impl Templates {
    pub(super) fn add(&mut self, text: &str) {
        let mut at = 0;
        while let Some(open) = text[at..].find("{{").map(|found| at + found) {
            let inner = &text[open + 2..];
            let comment = inner.trim_start_matches('-').trim_start().starts_with("/*");
            let begin = if comment { inner.find("*/").map(|end| end + 2) } else { Some(0) };
            let Some(end) = begin.and_then(|begin| inner[begin..].find("}}").map(|end| begin + end)) else { return };
            let (action, after) = (&inner[..end], &inner[end + 2..]);
            if !comment && action.contains(VERSION) && action.contains(".Values.") {
                let place = match place(&text[..open], action, after) {
                    Said::Tag(place) => Some(Some(place)),
                    Said::Unclear => Some(None),
                    Said::Other => None,
                };
                let action = action.strip_prefix('-').unwrap_or(action);
                let text = action.strip_suffix('-').unwrap_or(action).trim().to_owned();
                self.actions.extend(place.map(|place| Action { text, place }));
            }
            at = text.len() - after.len();
        }
    }

    /// What the tag at `path` (`$.image.tag`) is when it is empty, where all templates that speak of it agree.
    pub(super) fn default_of(&self, path: &str, version: &str) -> Option<String> {
        let value = format!(".Values.{}", path.strip_prefix("$.")?);
        let mut found = self.actions.iter().filter(|a| names(&a.text, &value)).map(|action| action.tag(version));
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

/// What an action is a part of.
enum Said {
    /// A tag.
    Tag(Place),
    /// The value of a key that is none: a label.
    Other,
    Unclear,
}

fn place(before: &str, action: &str, after: &str) -> Said {
    let line = before.rsplit('\n').next().unwrap_or_default();
    let Some((head, literal)) = line.rsplit_once(':') else { return Said::Unclear };
    let value = literal.trim_start();
    let is_value = value.len() < literal.len();
    let unquoted = if is_value { value.trim_start_matches(['"', '\'']) } else { value };
    if is_value {
        let key = head.trim_end_matches(['"', '\'']).rsplit([' ', '"', '\'', '{', ',']).next().unwrap_or_default();
        let key = key.to_ascii_lowercase();
        if !key.ends_with("tag") {
            return if key.contains("image") { Said::Unclear } else { Said::Other };
        }
    }
    let trimmed = action.starts_with('-') && line.ends_with(char::is_whitespace);
    match suffix(action, after).filter(|_| !trimmed && unquoted.chars().all(is_tag)) {
        Some(after) => {
            let bare = is_value && value.is_empty() && after.is_empty();
            Said::Tag(Place { before: unquoted.to_owned(), after: after.to_owned(), bare })
        }
        None => Said::Unclear,
    }
}

/// The literal text directly after an action, when it is clear that the tag ends with it.
fn suffix<'a>(action: &str, after: &'a str) -> Option<&'a str> {
    let is_end = |rest: &str| {
        rest.strip_prefix("{{").is_some_and(|rest| rest.trim_start_matches('-').trim_start().starts_with("end"))
    };
    if action.ends_with('-') && after.starts_with(char::is_whitespace) {
        let rest = after.trim_start();
        return (rest.is_empty() || is_end(rest)).then_some("");
    }
    let (literal, rest) = after.split_at(after.find(|c| !is_tag(c)).unwrap_or(after.len()));
    let next = rest.trim_start();
    let ends = match rest.chars().next() {
        None | Some('"' | '\'' | ',' | ']' | '@') => true,
        // `{{-` takes the space and the line's end away
        Some(c) if c.is_whitespace() => {
            let gap = &rest[..rest.len() - next.len()];
            let line_ends = |next: &str| next.split_once("}}").is_some_and(|(_, rest)| rest.starts_with(['\r', '\n']));
            !next.starts_with("{{-") || is_end(next) || (gap.contains('\n') && line_ends(next))
        }
        Some(_) => false,
    };
    ends.then_some(literal)
}

fn is_tag(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token<'a> {
    Open,
    Close,
    Pipe,
    Text(&'a str),
    Word(&'a str),
}

fn tokens(action: &str) -> Option<Vec<Token<'_>>> {
    let mut out = Vec::new();
    let mut rest = action.trim_start();
    while let Some(c) = rest.chars().next() {
        let (token, after) = match c {
            '(' => (Token::Open, &rest[1..]),
            ')' => (Token::Close, &rest[1..]),
            '|' => (Token::Pipe, &rest[1..]),
            '"' | '`' => {
                let (text, after) = rest[1..].split_once(c)?;
                (Token::Text(text), after)
            }
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || "()|\"`".contains(c)).unwrap_or(rest.len());
                (Token::Word(&rest[..end]), &rest[end..])
            }
        };
        if matches!(token, Token::Text(text) if text.contains('\\')) {
            return None;
        }
        out.push(token);
        rest = after.trim_start();
    }
    Some(out)
}

impl Action {
    /// The tag that it writes when its one value is empty; none where any of it is not understood.
    fn tag(&self, version: &str) -> Option<String> {
        let place = self.place.as_ref()?;
        let mut tokens = tokens(&self.text)?;
        if let [.., Token::Pipe, Token::Word("quote" | "squote")] = tokens.as_slice() {
            tokens.truncate(tokens.len() - 2);
            if !place.bare {
                return None;
            }
        }
        let count = |wanted: fn(&str) -> bool| {
            let word = |token: &&Token| matches!(token, Token::Word(word) if wanted(word.trim_start_matches('$')));
            tokens.iter().filter(word).count()
        };
        if count(|word| word == VERSION) != 1 || count(|word| word.starts_with(".Values.")) != 1 {
            return None;
        }
        let mut reader = Reader { tokens: &tokens, version };
        let tag = reader.pipeline()?;
        (reader.tokens.is_empty() && !tag.is_empty()).then(|| format!("{}{tag}{}", place.before, place.after))
    }
}

/// Works out an action whose values are empty.
struct Reader<'a> {
    tokens: &'a [Token<'a>],
    version: &'a str,
}

impl Reader<'_> {
    fn pipeline(&mut self) -> Option<String> {
        let mut value = self.command(None)?;
        while let [Token::Pipe, rest @ ..] = self.tokens {
            self.tokens = rest;
            value = self.command(Some(value))?;
        }
        Some(value)
    }

    fn command(&mut self, piped: Option<String>) -> Option<String> {
        let [first, rest @ ..] = self.tokens else { return None };
        let function = match first {
            Token::Word(word) if !word.starts_with(['.', '$']) => *word,
            _ => return self.operand().filter(|_| piped.is_none()),
        };
        self.tokens = rest;
        let mut arguments = Vec::new();
        while !matches!(self.tokens, [] | [Token::Pipe | Token::Close, ..]) {
            arguments.push(self.operand()?);
        }
        arguments.extend(piped);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        call(function, &arguments)
    }

    fn operand(&mut self) -> Option<String> {
        let [first, rest @ ..] = self.tokens else { return None };
        self.tokens = rest;
        match first {
            Token::Text(text) => Some((*text).to_owned()),
            Token::Word(word) => match word.trim_start_matches('$') {
                VERSION => Some(self.version.to_owned()),
                value => value.starts_with(".Values.").then(String::new),
            },
            Token::Open => {
                let value = self.pipeline()?;
                let [Token::Close, rest @ ..] = self.tokens else { return None };
                self.tokens = rest;
                Some(value)
            }
            Token::Close | Token::Pipe => None,
        }
    }
}

fn call(function: &str, arguments: &[&str]) -> Option<String> {
    let value: &str = match (function, arguments) {
        ("default", [other, ""]) => other,
        ("default", [_, value]) | ("toString", [value]) => value,
        ("coalesce" | "or", [.., last]) => arguments.iter().find(|value| !value.is_empty()).unwrap_or(last),
        ("trimPrefix", [prefix, value]) => value.strip_prefix(prefix).unwrap_or(value),
        ("trimSuffix", [suffix, value]) => value.strip_suffix(suffix).unwrap_or(value),
        ("printf", [format, value]) => {
            let (before, after) = format.split_once("%s")?;
            return (!before.contains('%') && !after.contains('%')).then(|| format!("{before}{value}{after}"));
        }
        _ => return None,
    };
    Some(value.to_owned())
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
            ("tag: {{- default $.Chart.AppVersion $.Values.image.tag -}}", "1.2", None),
            ("image: x:{{- default $.Chart.AppVersion $.Values.image.tag -}}", "1.2", Some("1.2")),
            ("tag: {{ .Values.image.tag | default (printf \"v%s\" .Chart.AppVersion) }}", "1.2", Some("v1.2")),
            (
                "tag: {{ .Values.image.tag | default ( printf \"%s-slim\" .Chart.AppVersion ) | quote }}",
                "1.2",
                Some("1.2-slim"),
            ),
            ("tag: {{ .Values.image.tag | default (trimPrefix \"v\" .Chart.AppVersion) }}", "v1.2", Some("1.2")),
            ("tag: {{ .Values.image.tag | default (.Chart.AppVersion | trimPrefix \"v\") }}", "v1.2", Some("1.2")),
            ("tag: {{ .Values.image.tag\n    | default\n    .Chart.AppVersion }}", "1.2", Some("1.2")),
            // pipes to the end
            (
                "tag: {{ .Values.image.tag | default .Chart.AppVersion | toString | trimPrefix \"v\" }}",
                "v1.2",
                Some("1.2"),
            ),
            ("tag: {{ default .Chart.AppVersion .Values.image.tag | trimPrefix \"v\" }}", "v1.2", Some("1.2")),
            ("tag: {{ .Values.image.tag | default .Chart.AppVersion | quote | trunc 3 }}", "1.2", None),
            ("image: x:{{ .Values.image.tag | default .Chart.AppVersion | quote }}", "1.2", None),
            // beside the braces
            ("image: \"x/y:v{{ .Values.image.tag | default .Chart.AppVersion }}-slim\"", "3.4.1", Some("v3.4.1-slim")),
            ("tag: \"v{{ .Values.image.tag | default .Chart.AppVersion }}\"", "3.4.1", Some("v3.4.1")),
            ("image: x:{{ .Values.p }}{{ .Values.image.tag | default .Chart.AppVersion }}", "1.2", None),
            ("image: x:{{ .Values.image.tag | default .Chart.AppVersion }}{{ .Values.s }}", "1.2", None),
            ("image: x:{{ .Values.image.tag | default .Chart.AppVersion }}\n{{- if .a }}-b{{ end }}", "1.2", None),
            ("image: x:{{ .Values.image.tag | default .Chart.AppVersion }}\n{{- if .a }}\nb: c", "1.2", Some("1.2")),
            ("{{ .r }}:{{ .Values.image.tag | default .Chart.AppVersion -}}\n{{- end -}}", "1.2", Some("1.2")),
            ("{{- $tag := .Values.image.tag | default .Chart.AppVersion }}", "1.2", None),
            // a label is no image, a comment is nothing
            ("version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}", "1.2", None),
            ("{{/* tag: {{ .Values.image.tag | default .Chart.AppVersion }} */}}", "1.2", None),
            ("{{- /* image: x:{{ .Values.image.tag | default .Chart.AppVersion }} */ -}}", "1.2", None),
            // not understood, or of something else
            ("tag: {{ coalesce .Values.image.tag .Values.common.tag .Chart.AppVersion }}", "1.2", None),
            ("tag: {{ .Values.image.tag | default (.Chart.AppVersion | replace \"+\" \"_\") }}", "1.2", None),
            ("tag: {{ .Values.image.tagged | default .Chart.AppVersion }}", "1.2", None),
            ("tag: {{ .Values.other.image.tag | default .Chart.AppVersion }}", "1.2", None),
            ("tag: {{ .Values.image.tag }} {{ .Chart.AppVersion }}", "1.2", None),
            ("tag: {{ printf \"%s:%s\" .Values.image.tag .Chart.AppVersion }}", "1.2", None),
            ("tag: {{ .Values.image.tag | default .Chart.AppVersion", "1.2", None),
        ] {
            let mut templates = Templates::default();
            templates.add(template);
            let found = templates.default_of("$.image.tag", version);
            assert_eq!(found.as_deref(), tag, "{template}");
        }
    }

    #[test]
    fn templates_that_disagree_say_nothing() {
        for (other, tag) in [
            ("tag: {{ .Values.image.tag | default (printf \"v%s\" .Chart.AppVersion) }}", None),
            ("{{ $tag := .Values.image.tag | default .Chart.AppVersion }}", None),
            ("version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 }}", Some("1.2")),
        ] {
            let mut templates = Templates::default();
            templates.add("image: x:{{ .Values.image.tag | default .Chart.AppVersion }}");
            templates.add(other);
            assert_eq!(templates.default_of("$.image.tag", "1.2").as_deref(), tag, "{other}");
        }
    }
}
