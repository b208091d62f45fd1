//! Charts as texts: what other files say of a values file, in finding, checking and rewriting.
#![allow(clippy::expect_used)]

mod common;

use common::relocation;
use ferry_image::{Form, SetRule};
use ferry_rewrite::{Charts, Confidence, Finding, check_around, find_around, rewrite_around};

/// Texts with their paths.
type Texts<'a> = &'a [(&'a str, &'a str)];

fn charts(texts: Texts, overrides: Texts) -> Charts {
    Charts::of(texts.iter().copied(), overrides)
}

fn text<'a>(texts: Texts<'a>, path: &str) -> &'a str {
    texts.iter().find(|(p, _)| *p == path).expect("path").1
}

/// `path:line path-in-file reference confidence` of every finding, in order of path and line.
fn found(texts: Texts, overrides: Texts) -> Vec<String> {
    let charts = charts(texts, overrides);
    let mut out = Vec::new();
    for (path, text) in texts.iter().chain(overrides).filter(|(path, _)| path.ends_with("values.yaml")) {
        for finding in find_around(text, &charts.around(path)).findings {
            out.push(shown(path, &finding));
        }
    }
    out
}

fn shown(file: &str, finding: &Finding) -> String {
    let reference = finding.reference.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
    let confidence = serde_json::to_value(finding.confidence).expect("json");
    format!("{file}:{} {} {reference} {}", finding.line, finding.path, confidence.as_str().expect("text"))
}

fn reasons(texts: Texts, path: &str) -> Vec<String> {
    let found = find_around(text(texts, path), &charts(texts, &[]).around(path));
    found.findings.into_iter().filter_map(|f| f.reason).collect()
}

const CHART: &str = "apiVersion: v2\nname: web\nversion: 1.0.0\nappVersion: \"1.5\"\n";
const EMPTY_TAG: &str = "image:\n  repository: quay.io/a/b\n  tag: \"\"\n";
const SAYS_SO: &str = "image: \"{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}\"\n";

#[test]
fn an_empty_tag_is_the_charts_app_version() {
    let silent: Texts = &[("web/Chart.yaml", CHART), ("web/values.yaml", EMPTY_TAG)];
    assert_eq!(found(silent, &[]), ["web/values.yaml:2 $.image quay.io/a/b:1.5 computed"]);
    assert_eq!(
        reasons(silent, "web/values.yaml"),
        ["`tag` is empty: appVersion of web/Chart.yaml:4, if the templates do as most do"]
    );
    let says_so: Texts = &[silent[0], silent[1], ("web/templates/deployment.yaml", SAYS_SO)];
    assert_eq!(found(says_so, &[]), ["web/values.yaml:2 $.image quay.io/a/b:1.5 certain"]);
    assert_eq!(
        reasons(says_so, "web/values.yaml"),
        ["`tag` is empty: appVersion of web/Chart.yaml:4, the templates take it"]
    );
    for tag in ["  tag: null\n", "  tag:\n", "  tag: ~\n", ""] {
        let values = format!("image:\n  repository: quay.io/a/b\n{tag}");
        let texts: Texts = &[("Chart.yaml", CHART), ("values.yaml", &values)];
        assert_eq!(found(texts, &[]), ["values.yaml:2 $.image quay.io/a/b:1.5 computed"], "{tag:?}");
    }
    // no chart, or one that does not say
    assert_eq!(found(&[("values.yaml", EMPTY_TAG)], &[]), ["values.yaml:2 $.image ? unresolvable"]);
    let mute: Texts = &[("Chart.yaml", "name: web\nversion: 1.0.0\n"), ("values.yaml", EMPTY_TAG)];
    assert_eq!(found(mute, &[]), ["values.yaml:2 $.image ? unresolvable"]);
    // a digest needs no tag, and a tag that stands there wins
    let digest = "image: {repository: quay.io/a/b, tag: '', digest: 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'}\n";
    let pinned = found(&[("Chart.yaml", CHART), ("values.yaml", digest)], &[]);
    assert!(pinned[0].contains("quay.io/a/b@sha256:") && pinned[0].ends_with("certain"), "{pinned:?}");
}

#[test]
fn empty_pieces_come_from_global() {
    let values = "global:\n  image: {registry: quay.io, repository: a/b, tag: '3'}\nmain:\n  image: {repository: '', tag: ''}\nside:\n  image: {repository: c/d, tag: '4'}\n";
    assert_eq!(
        found(&[("values.yaml", values)], &[]),
        // a piece that stands in `global` is the first of the reference, so its line is the reference's
        [
            "values.yaml:2 $.global.image quay.io/a/b:3 certain",
            "values.yaml:2 $.main.image quay.io/a/b:3 computed",
            "values.yaml:2 $.side.image quay.io/c/d:4 certain",
        ]
    );
}

/// A chart with a sub-chart under two aliases, one of them off, and one inside that.
const UMBRELLA: Texts = &[
    (
        "shop/Chart.yaml",
        "name: shop\nversion: 2.0.0\nappVersion: '9'\ndependencies:\n  - {name: cache, alias: hot, version: 1.x.x, condition: hot.enabled}\n  - {name: cache, alias: cold, version: 1.x.x, condition: cold.enabled}\n  - {name: queue, version: 3.0.0}\n",
    ),
    (
        "shop/values.yaml",
        "global:\n  imageRegistry: reg.example.com\nhot:\n  enabled: true\n  image:\n    tag: '7.2'\ncold:\n  enabled: false\n  exporter:\n    image:\n      repository: other/exporter\n",
    ),
    ("shop/charts/cache/Chart.yaml", "name: cache\nversion: 1.2.3\nappVersion: '7.0'\n"),
    (
        "shop/charts/cache/values.yaml",
        "image:\n  registry: docker.io\n  repository: team/cache\n  tag: ''\nexporter:\n  image: {repository: team/exporter, tag: '1'}\n",
    ),
    ("shop/charts/cache/charts/common-1.0.0.tgz/Chart.yaml", "name: common\nversion: 1.0.0\nappVersion: '5'\n"),
    ("shop/charts/cache/charts/common-1.0.0.tgz/values.yaml", "init: {image: {repository: quay.io/a/init, tag: ''}}\n"),
];

#[test]
fn parents_go_before_sub_charts_under_their_alias() {
    assert_eq!(
        found(UMBRELLA, &[]),
        [
            // the exporter of `cold` gets its name above, its tag below, its registry from `global`
            "shop/values.yaml:2 $.cold.exporter.image reg.example.com/other/exporter:1 computed",
            "shop/charts/cache/values.yaml:2 $.image docker.io/team/cache:7.2 computed",
            "shop/charts/cache/values.yaml:2 $.image docker.io/team/cache:7.0 computed",
            "shop/charts/cache/values.yaml:6 $.exporter.image reg.example.com/team/exporter:1 certain",
            "shop/charts/cache/charts/common-1.0.0.tgz/values.yaml:1 $.init.image quay.io/a/init:5 computed",
        ]
    );
    let why = reasons(UMBRELLA, "shop/charts/cache/values.yaml");
    assert!(why.iter().any(|r| r.contains("`7.2` stands in shop/values.yaml:6")), "{why:?}");
    assert!(
        why.iter().any(|r| r.contains("the sub-chart `cold` is off: `cold.enabled` is false (shop/values.yaml:8)")),
        "{why:?}"
    );
    let charts = charts(UMBRELLA, &[]);
    assert_eq!(charts.charts.len(), 1);
    assert_eq!((charts.charts[0].folder.as_str(), charts.charts[0].name.as_deref()), ("shop", Some("shop")));
    let absent: Vec<_> = charts.absent.iter().map(|a| format!("{}:{} {}", a.path, a.line, a.name)).collect();
    assert_eq!(absent, ["shop/Chart.yaml:7 queue 3.0.0"]);
    assert_eq!(charts.holding("shop/charts/cache/templates/x.yaml"), Some("shop/charts/cache"));
    assert_eq!(charts.holding("other.yaml"), None);
}

#[test]
fn values_that_are_handed_over_go_before_all() {
    let mine: Texts =
        &[("mine/values.yaml", "hot: {image: {tag: '8'}}\ncold: {enabled: true}\nextra: {image: quay.io/x/y:1}\n")];
    let found = found(UMBRELLA, mine);
    assert!(
        found.contains(&"shop/charts/cache/values.yaml:2 $.image docker.io/team/cache:8 computed".to_owned()),
        "{found:#?}"
    );
    assert!(found.contains(&"shop/charts/cache/values.yaml:2 $.image docker.io/team/cache:7.0 computed".to_owned()));
    assert!(found.contains(&"mine/values.yaml:3 $.extra.image quay.io/x/y:1 certain".to_owned()), "{found:#?}");
    assert!(
        found.contains(&"shop/values.yaml:2 $.cold.exporter.image reg.example.com/other/exporter:1 certain".to_owned())
    );
}

#[test]
fn tags_of_dependencies_and_nulls() {
    let texts: Texts = &[
        ("Chart.yaml", "name: a\nversion: '1'\ndependencies:\n  - {name: b, version: '1', tags: [x, y]}\n"),
        ("values.yaml", "tags: {x: false}\nb:\n  image: {tag: null}\n"),
        ("charts/b/Chart.yaml", "name: b\nversion: '1'\nappVersion: '6'\n"),
        ("charts/b/values.yaml", "image: {repository: q.io/b, tag: '2'}\n"),
    ];
    assert_eq!(found(texts, &[]), ["charts/b/values.yaml:1 $.image q.io/b:6 computed"]);
    let why = reasons(texts, "charts/b/values.yaml");
    assert!(why[0].ends_with("the sub-chart `b` is off: `tags.x` is false (values.yaml:1)"), "{why:?}");
}

#[test]
fn a_name_that_the_parent_replaces_is_not_asked_for() {
    let texts: Texts = &[
        ("Chart.yaml", "name: a\nversion: '1'\n"),
        ("values.yaml", "b:\n  image: {repository: q.io/mine, tag: '1'}\n"),
        ("charts/b/Chart.yaml", "name: b\nversion: '1'\n"),
        ("charts/b/values.yaml", "image: {repository: q.io/theirs, tag: '1'}\n"),
    ];
    assert_eq!(found(texts, &[]), ["values.yaml:2 $.b.image q.io/mine:1 certain"]);
    let around = charts(texts, &[]).around("charts/b/values.yaml");
    let checked = check_around(text(texts, "charts/b/values.yaml"), "values.yaml", &around, &|_| false, &[], &[]);
    assert_eq!(checked.uncarried.len(), 0);
}

#[test]
fn a_rule_for_the_parents_own_image_does_not_cover_the_sub_charts() {
    let rule = SetRule {
        file: None,
        kind: None,
        paths: vec!["image".to_owned()],
        form: Form::RepositoryTag,
        image: "q.io/own:1".parse().expect("reference"),
    };
    let texts: Texts = &[
        ("Chart.yaml", "name: a\nversion: '1'\n"),
        ("values.yaml", "b: {image: {repository: q.io/sub, tag: '1'}}\n"),
        ("charts/b/Chart.yaml", "name: b\nversion: '1'\n"),
        ("charts/b/values.yaml", "image: {repository: q.io/other, tag: '1'}\n"),
    ];
    let around = charts(texts, &[]).around("values.yaml");
    let carried = |r: &ferry_image::Reference| r.to_string() == "q.io/own:1";
    let check = |rule: SetRule| {
        check_around(text(texts, "values.yaml"), "values.yaml", &around, &carried, &[rule], &[]).uncarried
    };
    let left = check(rule.clone());
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].path, "$.b.image");
    assert!(check(SetRule { paths: vec!["b.image".to_owned()], ..rule }).is_empty());
}

#[test]
fn the_gate_and_the_rewriting_know_the_app_version() {
    let texts: Texts = &[("c/Chart.yaml", CHART), ("c/values.yaml", EMPTY_TAG), ("c/templates/a.yaml", SAYS_SO)];
    let charts = charts(texts, &[]);
    let around = charts.around("c/values.yaml");
    let carried = |r: &ferry_image::Reference| r.to_string() == "quay.io/a/b:1.5";
    assert_eq!(check_around(EMPTY_TAG, "values.yaml", &around, &carried, &[], &[]).uncarried.len(), 0);
    let missing = check_around(EMPTY_TAG, "values.yaml", &around, &|_| false, &[], &[]).uncarried;
    assert_eq!(missing[0].confidence, Confidence::Certain);
    let relocation = relocation("r:5/p", &[("quay.io/a/b:1.5", "a/b")]);
    let out = rewrite_around(EMPTY_TAG, "values.yaml", &around, &relocation, &[], &[]);
    assert_eq!(out.text, "image:\n  repository: r:5/p/a/b\n  tag: \"\"\n");
    assert!(out.uncarried.is_empty(), "{:?}", out.uncarried);
    // a second run, on what stands there now
    let again: Texts = &[texts[0], ("c/values.yaml", &out.text), texts[2]];
    let around = Charts::of(again.iter().copied(), &[]).around("c/values.yaml");
    let second = rewrite_around(&out.text, "values.yaml", &around, &relocation, &[], &[]);
    assert_eq!(second.text, out.text);
    assert!(second.changes.is_empty() && second.uncarried.is_empty(), "{second:?}");
}

#[test]
fn pieces_in_other_files_are_not_edited_and_said_when_they_would_have_to_be() {
    let relocation = relocation(
        "r:5/p",
        &[
            ("docker.io/team/cache:7.2", "team/cache"),
            ("docker.io/team/cache:7.0", "team/cache"),
            ("reg.example.com/team/exporter:1", "team/exporter"),
        ],
    );
    let charts = charts(UMBRELLA, &[]);
    let path = "shop/charts/cache/values.yaml";
    let out = rewrite_around(text(UMBRELLA, path), "values.yaml", &charts.around(path), &relocation, &[], &[]);
    assert_eq!(
        out.text,
        "image:\n  registry: r:5\n  repository: p/team/cache\n  tag: ''\nexporter:\n  image: {repository: team/exporter, tag: '1'}\n"
    );
    let left: Vec<_> = out.uncarried.iter().filter_map(|f| f.reason.clone()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(
        left[0].contains("`reg.example.com` stands in shop/values.yaml:2 and would have to become `r:5` there"),
        "{left:?}"
    );
}

#[test]
fn another_text_than_the_one_that_was_looked_at_is_taken_alone() {
    let texts: Texts = &[("Chart.yaml", CHART), ("values.yaml", EMPTY_TAG)];
    let around = charts(texts, &[]).around("values.yaml");
    let other = "a: {image: {repository: q.io/x, tag: '1'}}\n";
    assert_eq!(shown("", &find_around(other, &around).findings[0]), ":1 $.a.image q.io/x:1 certain");
}

#[test]
fn aliases_and_uses_of_charts_do_not_explode() {
    // every level doubles: 2^40 values if it were expanded
    let mut bomb = "x0: &x0 {image: q.io/a:1}\n".to_owned();
    for i in 0..40 {
        bomb.push_str(&format!("x{}: &x{} [*x{i}, *x{i}]\n", i + 1, i + 1));
    }
    let texts: Texts = &[("Chart.yaml", CHART), ("values.yaml", &bomb)];
    assert_eq!(found(texts, &[]), ["values.yaml:1 $.x0.image q.io/a:1 certain"]);
    let skipped = charts(texts, &[]).skipped;
    assert!(skipped.len() == 1 && skipped[0].starts_with("values.yaml: it is looked at alone"), "{skipped:?}");
    // ten aliases a level, eight levels deep
    let mut owned: Vec<(String, String)> = Vec::new();
    let mut folder = String::new();
    for level in 0..8 {
        let below = level + 1;
        let aliases: String = (0..10).map(|i| format!("  - {{name: c{below}, alias: k{i}}}\n")).collect();
        owned.push((format!("{folder}Chart.yaml"), format!("name: c{level}\ndependencies:\n{aliases}")));
        folder.push_str(&format!("charts/c{below}/"));
    }
    owned.push((format!("{folder}Chart.yaml"), "name: c8\n".to_owned()));
    owned.push((format!("{folder}values.yaml"), "image: q.io/deep:1\n".to_owned()));
    let texts: Vec<(&str, &str)> = owned.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let last = texts.last().expect("values").0;
    let skipped = charts(&texts, &[]).skipped;
    assert!(
        skipped.iter().any(|s| s.contains("c8/Chart.yaml: some uses of this chart are not looked at")),
        "{skipped:?}"
    );
    assert_eq!(found(&texts, &[]), [format!("{last}:1 $.image q.io/deep:1 certain")]);
}
