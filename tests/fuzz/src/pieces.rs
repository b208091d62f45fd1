//! Input that is several files: sections with a name each, so that a mutation of one document leaves the archive around it whole.
//!
//! ```text
//! === blob
//! {"os":"linux"}
//! === index.json
//! {"manifests":[{"digest":"sha256:%0%","size":#0#}]}
//! ```
//!
//! Sections called `blob` are named by their digest. `%N%` is the hex digest of the Nth blob before, `#N#` its size, `@N@` its offset in a
//! bundle's data section.

use ferry_image::Digest;

/// Blobs in one input at most.
const MOST: usize = 16;

/// One file.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Its name; `blobs/sha256/…` for a blob.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Takes an input apart. What stands before the first section is ignored.
#[must_use]
pub fn pieces(data: &[u8]) -> Vec<Piece> {
    let mut all: Vec<Piece> = Vec::new();
    let mut blobs: Vec<(String, usize, usize)> = Vec::new();
    let mut offset = 512;
    for section in split(data) {
        let end = section.iter().position(|b| *b == b'\n').unwrap_or(section.len());
        let name = String::from_utf8_lossy(&fill(&section[..end], &blobs)).into_owned();
        let bytes = fill(section.get(end + 1..).unwrap_or_default(), &blobs);
        if name != "blob" {
            all.push(Piece { name, bytes });
        } else if blobs.len() < MOST {
            let digest = Digest::of(&bytes);
            blobs.push((digest.hex().to_owned(), bytes.len(), offset));
            offset += bytes.len().next_multiple_of(512) + 512;
            all.push(Piece { name: digest.blob_path(), bytes });
        }
    }
    all
}

/// What follows each line `=== `.
fn split(data: &[u8]) -> Vec<&[u8]> {
    const MARK: &[u8] = b"=== ";
    let starts = |at: usize| (at == 0 || data[at - 1] == b'\n') && data[at..].starts_with(MARK);
    let marks: Vec<usize> = (0..data.len()).filter(|at| starts(*at)).collect();
    let ends = marks.iter().skip(1).map(|next| next - 1).chain([data.len()]);
    marks.iter().zip(ends).map(|(start, end)| &data[(start + MARK.len()).min(end)..end]).collect()
}

fn fill(text: &[u8], blobs: &[(String, usize, usize)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let mark = text[at];
        let word = text[at + 1..].iter().take(3).position(|b| *b == mark).map(|n| &text[at + 1..at + 1 + n]);
        let number = word.and_then(|w| std::str::from_utf8(w).ok()?.parse::<usize>().ok());
        match number.and_then(|n| blobs.get(n)).filter(|_| b"%#@".contains(&mark)) {
            Some((hex, size, offset)) => {
                match mark {
                    b'%' => out.extend_from_slice(hex.as_bytes()),
                    b'#' => out.extend_from_slice(size.to_string().as_bytes()),
                    _ => out.extend_from_slice(offset.to_string().as_bytes()),
                }
                at += 2 + word.map_or(0, <[u8]>::len);
            }
            None => {
                out.push(mark);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_several_files() {
        let found = pieces(b"lost\n=== blob\nab\n=== blob\n\n=== %0%.json\n<#0#,@1@,%9%,%>\n=== \n");
        let named: Vec<(&str, &[u8])> = found.iter().map(|p| (p.name.as_str(), p.bytes.as_slice())).collect();
        let (ab, empty) = (Digest::of(b"ab"), Digest::of(b""));
        let json = format!("{}.json", ab.hex());
        assert_eq!(
            named,
            [
                (ab.blob_path().as_str(), b"ab".as_slice()),
                (&empty.blob_path(), b""),
                (&json, b"<2,1536,%9%,%>"),
                ("", b""),
            ]
        );
    }
}
