//! The relocation in the forms that a site asks for, written below the output folder. What each form is made of is decided in
//! `ferry_rewrite::emit`.

use std::collections::BTreeSet;
use std::path::Path;

use ferry_content::{Problems, texts};
use ferry_image::Relocation;
use ferry_rewrite::Rewritten;
use ferry_rewrite::emit::{self, Emitted, Form, Options};

use crate::Error;
use crate::yaml::Text;

/// Writes the relocation in every form of `forms`, each once. `all` are the texts and what was made of them.
pub(crate) fn all<'a>(
    forms: &[Form],
    relocation: &Relocation,
    options: &Options,
    all: impl Iterator<Item = (&'a Text, &'a Rewritten)>,
) -> Vec<Emitted> {
    let texts: Vec<emit::Text<'_>> = all
        .map(|(text, new)| emit::Text {
            name: &text.name,
            before: &text.text,
            after: &new.text,
            around: &text.around,
            chart: text.chart.as_ref(),
        })
        .collect();
    let once: BTreeSet<Form> = forms.iter().copied().collect();
    once.into_iter().map(|form| emit::emit(form, relocation, options, &texts)).collect()
}

/// A form that expresses nothing, though there are images, is a problem, and so is a file that would be written twice.
pub(crate) fn check(emitted: &[Emitted], relocation: &Relocation, out: &Path, texts: &[Text], problems: &mut Problems) {
    let mut seen: BTreeSet<&str> = texts.iter().map(|text| text.name.as_str()).collect();
    for emitted in emitted {
        if emitted.files.is_empty() && !relocation.images.is_empty() {
            let first = emitted.left_out.first().map(|left| format!("`{}`: {}", left.image, left.why));
            problems.add("--emit", Error::Inexpressible { form: emitted.form.name(), first });
        }
        for file in emitted.files.iter().filter(|file| !seen.insert(&file.path)) {
            problems.add("--emit", Error::SameName { name: file.path.clone(), out: out.to_owned() });
        }
    }
}

/// Writes the files below `out`.
pub(crate) fn write(emitted: &[Emitted], out: &Path, problems: &mut Problems) {
    for file in emitted.iter().flat_map(|emitted| &emitted.files) {
        if let Err(error) = texts::write(&out.join(&file.path), file.text.as_bytes()) {
            problems.add("", error);
        }
    }
}
