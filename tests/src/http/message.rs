//! One message of either direction: its head at once, its body as it comes.

use std::io::{self, BufRead, Read};

/// What came back, or what was asked.
#[derive(Debug, Clone)]
pub struct Message {
    /// `200`, or of a request 0.
    pub status: u16,
    /// Of a request.
    pub method: String,
    /// Of a request: path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Message {
    /// The first header of that name (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Reads everything before the body.
pub(super) fn head(from: &mut impl BufRead) -> io::Result<Message> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let (&first, &second) = (words.first().ok_or(broken(&line))?, words.get(1).ok_or(broken(&line))?);
    let status = if first.starts_with("HTTP/") { second.parse().map_err(|_| broken(&line))? } else { 0 };
    let mut message =
        Message { status, method: first.into(), path: second.into(), headers: Vec::new(), body: Vec::new() };
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(message) };
        message.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn broken(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {line:?}"))
}

/// A body that has not been read yet. One that ends too early is an error.
pub struct Body<'a> {
    from: &'a mut dyn BufRead,
    left: Left,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Bytes(u64),
    /// Of the current chunk.
    Chunk(u64),
    UntilClosed,
}

impl<'a> Body<'a> {
    /// The body that follows `head`.
    pub(super) fn of(head: &Message, from: &'a mut dyn BufRead) -> Self {
        let is_chunked = head.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
        let length = head.header("content-length").and_then(|len| len.parse().ok());
        let left = match length {
            _ if matches!(head.status, 204 | 304) => Left::Bytes(0),
            _ if is_chunked => Left::Chunk(0),
            Some(length) => Left::Bytes(length),
            None if head.status == 0 => Left::Bytes(0),
            None => Left::UntilClosed,
        };
        Self { from, left }
    }

    /// Whether nothing of it is left on the connection.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.left == Left::Bytes(0)
    }

    /// The length of the next chunk; the last one ends the body.
    fn next_chunk(&mut self) -> io::Result<()> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(|_| broken(&line))?;
        if size == 0 {
            self.from.read_line(&mut String::new())?;
            self.left = Left::Bytes(0);
        } else {
            self.left = Left::Chunk(size);
        }
        Ok(())
    }
}

impl Read for Body<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == Left::Chunk(0) {
            self.next_chunk()?;
        }
        let (Left::Bytes(most) | Left::Chunk(most)) = self.left else { return self.from.read(into) };
        if most == 0 || into.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(into.len());
        let got = self.from.read(&mut into[..most])?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &mut self.left {
            Left::Bytes(left) => *left -= got as u64,
            Left::Chunk(left) => {
                *left -= got as u64;
                if *left == 0 {
                    self.from.read_line(&mut String::new())?;
                }
            }
            Left::UntilClosed => {}
        }
        Ok(got)
    }
}
