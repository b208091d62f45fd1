//! `WWW-Authenticate` (RFC 9110, section 11.6.1): which scheme the server wants, and its parameters. Pure.
//!
//! Several challenges may stand in one header, parameters are separated by the same commas as challenges, quoted values
//! hold commas of their own, and registries write scheme and parameter names in any case.

/// The longest header that is read; the rest is ignored.
const MAX_HEADER: usize = 8 << 10;

/// One challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// The scheme, lower case.
    pub(crate) scheme: String,
    /// Parameters in order; names lower case.
    pub(crate) parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The first parameter called `name` (lower case).
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Reads one header value. What cannot be understood is skipped: a server that offers something odd beside `Bearer` is usable.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut cursor = Cursor { rest: clip(header) };
    loop {
        cursor.skip(|c| c.is_ascii_whitespace() || c == ',');
        let name = cursor.take(is_token);
        if name.is_empty() {
            if cursor.rest.is_empty() {
                return challenges;
            }
            cursor.skip_one();
            continue;
        }
        if let Some(value) = cursor.value() {
            if let Some(current) = challenges.last_mut() {
                current.parameters.push((name.to_ascii_lowercase(), value));
            }
            continue;
        }
        challenges.push(Challenge { scheme: name.to_ascii_lowercase(), parameters: Vec::new() });
        cursor.skip_token68();
    }
}

fn clip(text: &str) -> &str {
    let mut end = text.len().min(MAX_HEADER);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn skip(&mut self, unwanted: impl Fn(char) -> bool) {
        self.take(unwanted);
    }

    fn skip_one(&mut self) {
        let mut chars = self.rest.chars();
        chars.next();
        self.rest = chars.as_str();
    }

    /// `= value` or `= "value"`; nothing is consumed when there is no `=`.
    fn value(&mut self) -> Option<String> {
        let after = self.rest.trim_start().strip_prefix('=')?.trim_start();
        let Some(quoted) = after.strip_prefix('"') else {
            self.rest = after;
            return Some(self.take(|c| c != ',' && !c.is_ascii_whitespace()).to_owned());
        };
        let mut value = String::new();
        let mut chars = quoted.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => value.extend(chars.next()),
                c => value.push(c),
            }
        }
        self.rest = chars.as_str();
        Some(value)
    }

    /// `Negotiate YWJj==`: the token is not a parameter, although it may end in `=`.
    fn skip_token68(&mut self) {
        let start = self.rest.trim_start();
        let end = start.find([',', ' ', '\t']).unwrap_or(start.len());
        let (token, after) = start.split_at(end);
        let stem = token.trim_end_matches('=');
        let next = after.trim_start();
        let is_parameter =
            next.starts_with('=') || (token.ends_with('=') && !next.is_empty() && !next.starts_with(','));
        if !stem.is_empty() && !stem.contains(['=', '"']) && !is_parameter && (next.is_empty() || next.starts_with(','))
        {
            self.rest = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flat(header: &str) -> Vec<String> {
        parse(header)
            .iter()
            .map(|c| {
                let all: Vec<String> = c.parameters.iter().map(|(n, v)| format!("{n}={v}")).collect();
                format!("{} {}", c.scheme, all.join("|")).trim_end().to_owned()
            })
            .collect()
    }

    #[test]
    fn challenges_as_registries_write_them() {
        let table: &[(&str, &[&str])] = &[
            (r#"Basic realm="Registry Realm""#, &["basic realm=Registry Realm"]),
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                &[
                    "bearer realm=https://auth.docker.io/token|service=registry.docker.io|scope=repository:a/b:pull,push",
                ],
            ),
            (r#"BEARER Realm="https://x/t", SERVICE=s"#, &["bearer realm=https://x/t|service=s"]),
            (r#"Basic realm="a, b", Bearer realm="c""#, &["basic realm=a, b", "bearer realm=c"]),
            (r#"Negotiate, Basic realm="x""#, &["negotiate", "basic realm=x"]),
            (r#"Negotiate YWJj==, Basic realm="x""#, &["negotiate", "basic realm=x"]),
            (r#"Bearer realm = "x" , error="invalid_token""#, &["bearer realm=x|error=invalid_token"]),
            (r#"Bearer realm="a\"b\\c""#, &[r#"bearer realm=a"b\c"#]),
            (r#"Bearer realm="open"#, &["bearer realm=open"]),
            (",, Basic", &["basic"]),
            ("realm=\"lost\"", &[]),
            ("", &[]),
        ];
        for (header, expected) in table {
            assert_eq!(&flat(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(header in ".{0,300}") {
            parse(&header);
        }

        #[test]
        fn quoted_values_come_back(realm in "[ -~]{0,60}", service in "[ -~]{0,60}") {
            let quote = |t: &str| t.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!(r#"Basic realm="x", Bearer realm="{}",service="{}""#, quote(&realm), quote(&service));
            let all = parse(&header);
            prop_assert_eq!(all.len(), 2);
            prop_assert_eq!(all[1].parameter("realm"), Some(realm.as_str()));
            prop_assert_eq!(all[1].parameter("service"), Some(service.as_str()));
        }

        #[test]
        fn any_list_of_challenges_comes_back(
            list in prop::collection::vec(
                ("[A-Za-z][A-Za-z0-9-]{0,8}", prop_oneof![
                    2 => prop::collection::vec(("[A-Za-z_][a-z_]{0,8}", "[ -~]{0,20}", any::<bool>(), " {0,2}"), 1..4).prop_map(Ok),
                    1 => "[A-Za-z0-9._~+/-]{1,12}={0,2}".prop_map(Err),
                ]),
                0..4,
            ),
        ) {
            let (mut header, mut expected) = (Vec::new(), Vec::new());
            for (scheme, rest) in list {
                let mut parameters = Vec::new();
                match rest {
                    Err(token) => header.push(format!("{scheme} {token}")),
                    Ok(all) => {
                        let mut words = Vec::new();
                        for (name, value, bare, space) in all {
                            let bare = bare && !value.is_empty() && value.chars().all(is_token);
                            let written = if bare { value.clone() } else {
                                format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
                            };
                            words.push(format!("{name}{space}={space}{written}"));
                            parameters.push((name.to_ascii_lowercase(), value));
                        }
                        header.push(format!("{scheme} {}", words.join(" , ")));
                    }
                }
                expected.push(Challenge { scheme: scheme.to_ascii_lowercase(), parameters });
            }
            prop_assert_eq!(parse(&header.join(",")), expected);
        }
    }
}
