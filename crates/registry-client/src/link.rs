//! `Link` (RFC 8288) as registries use it for pages: `</v2/x/tags/list?last=b&n=50>; rel="next"`. Pure.

/// The target of the first link whose relation is `next`.
pub(crate) fn next(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        let (mut parameters, after) = split_unquoted(after, ',');
        while !parameters.is_empty() {
            let (parameter, others) = split_unquoted(parameters, ';');
            if is_next(parameter) {
                return Some(target.trim());
            }
            parameters = others;
        }
        rest = after;
    }
}

/// What stands before the first `separator` outside quotes, and what behind it.
fn split_unquoted(text: &str, separator: char) -> (&str, &str) {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            c if c == separator && !quoted => return (&text[..at], &text[at + c.len_utf8()..]),
            _ => {}
        }
    }
    (text, "")
}

fn is_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    name.trim().eq_ignore_ascii_case("rel")
        && value.trim().trim_matches('"').split_ascii_whitespace().any(|r| r.eq_ignore_ascii_case("next"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_next_page_is_found() {
        let table = [
            (r#"</v2/a/tags/list?last=b&n=2>; rel="next""#, Some("/v2/a/tags/list?last=b&n=2")),
            ("</a>;rel=next", Some("/a")),
            (r#"</p>; rel="prev", </n>; rel="next""#, Some("/n")),
            (r#"</p>; title="x, <no>; rel=next"; rel=prev, </n>; REL="last next""#, Some("/n")),
            (r#"</p>; rel="prev""#, None),
            ("<unclosed; rel=next", None),
            ("", None),
        ];
        for (header, expected) in table {
            assert_eq!(next(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(header in ".{0,200}") {
            next(&header);
        }

        #[test]
        fn a_target_comes_back(target in "/[a-z0-9/?=&,;%]{0,60}") {
            let header = format!(r#"<{target}>; rel="next""#);
            prop_assert_eq!(next(&header), Some(target.as_str()));
        }

        #[test]
        fn the_first_next_of_any_list_is_found(
            links in prop::collection::vec(("/[a-z0-9?=&,;\"]{0,12}", "prev|next|NEXT|last next|nextish", "(; title=\"[a-z,;<>= ]{0,12}\")?", any::<bool>()), 0..5),
        ) {
            let written = links.iter().map(|(target, relation, title, after)| match after {
                true => format!("<{target}>; rel=\"{relation}\"{title}"),
                false => format!("< {target}>{title} ;rel = \"{relation}\""),
            });
            let header = written.collect::<Vec<_>>().join(" ,");
            let is_next = |relation: &str| relation.to_ascii_lowercase().split(' ').any(|word| word == "next");
            let expected = links.iter().find(|(_, relation, ..)| is_next(relation)).map(|(target, ..)| target.as_str());
            prop_assert_eq!(next(&header), expected, "{}", header);
        }
    }
}
