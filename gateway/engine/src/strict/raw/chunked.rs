//! Finds the end of a chunked body (RFC 9112 §7.1). Anything but the plain grammar is broken.

/// Longest chunk extension or trailer line, and most trailer lines, that are followed.
const MAX_LINE: usize = 8 << 10;
const MAX_TRAILERS: usize = 100;

/// How far a chunked body has come.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    state: State,
    /// Bytes of the present extension or trailer line.
    line: usize,
    trailers: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Before a size.
    #[default]
    Start,
    /// Within a size.
    Size(u64),
    Extension(u64),
    /// Behind the CR of a size's line.
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the beginning of a trailer line, or of the empty line that ends the body.
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
}

/// What a piece of the body has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The body goes on behind it.
    More,
    /// The body ends with this byte of it.
    Done(usize),
    /// It is not chunked.
    Broken,
}

impl Chunked {
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Progress {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if let State::Data(left) = &mut self.state {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                *left -= count as u64;
                if *left == 0 {
                    self.state = State::DataCr;
                }
                at += count;
                continue;
            }
            let Some(next) = self.step(*byte) else { return Progress::Broken };
            at += 1;
            if let (State::EndLf, b'\n') = (self.state, byte) {
                return Progress::Done(at);
            }
            self.state = next;
        }
        Progress::More
    }

    /// The state behind `byte`; `None` where the grammar does not allow it.
    fn step(&mut self, byte: u8) -> Option<State> {
        Some(match (self.state, byte) {
            (State::Start, _) => State::Size(digit(byte)?),
            (State::Size(size) | State::Extension(size), b'\r') => {
                self.line = 0;
                State::SizeLf(size)
            }
            (State::Size(size), b';') => State::Extension(size),
            (State::Size(size), _) => State::Size(size.checked_mul(16)?.checked_add(digit(byte)?)?),
            (State::Extension(size), _) => {
                self.count(byte)?;
                State::Extension(size)
            }
            (State::SizeLf(0) | State::TrailerLf, b'\n') => State::TrailerStart,
            (State::SizeLf(size), b'\n') => State::Data(size),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Start,
            (State::TrailerStart, b'\r') | (State::EndLf, b'\n') => State::EndLf,
            (State::Trailer, b'\r') => {
                self.line = 0;
                self.trailers += 1;
                State::TrailerLf
            }
            (State::TrailerStart | State::Trailer, _) => {
                if self.trailers == MAX_TRAILERS {
                    return None;
                }
                self.count(byte)?;
                State::Trailer
            }
            _ => return None,
        })
    }

    /// Counts a byte of a line, which must not be a control character.
    fn count(&mut self, byte: u8) -> Option<()> {
        self.line += 1;
        ((byte >= b' ' && byte != 0x7f || byte == b'\t') && self.line <= MAX_LINE).then_some(())
    }
}

fn digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the text at once and byte by byte; both must agree.
    fn feed(text: &[u8]) -> Progress {
        let whole = Chunked::default().feed(text);
        let mut chunked = Chunked::default();
        let mut bytewise = Progress::More;
        for (index, byte) in text.iter().enumerate() {
            match chunked.feed(&[*byte]) {
                Progress::More => {}
                Progress::Done(_) => {
                    bytewise = Progress::Done(index + 1);
                    break;
                }
                Progress::Broken => {
                    bytewise = Progress::Broken;
                    break;
                }
            }
        }
        assert_eq!(whole, bytewise);
        whole
    }

    #[test]
    fn the_end_is_found() {
        for (text, progress) in [
            (&b"0\r\n\r\nGET"[..], Progress::Done(5)),
            (b"3\r\nabc\r\n0\r\n\r\n", Progress::Done(13)),
            (b"00A;x=\"y\"\r\n0123456789\r\n0\r\na: b\r\nc: d\r\n\r\nrest", Progress::Done(40)),
            (b"5\r\nab\r\n", Progress::More),
            (b"3\r\nabc\r\n0\r\n", Progress::More),
        ] {
            assert_eq!(feed(text), progress, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn what_two_readers_may_read_differently_is_broken() {
        for text in [
            &b"+3\r\nabc\r\n"[..],
            b"0x3\r\nabc\r\n",
            b" 3\r\nabc\r\n",
            b"3 \r\nabc\r\n",
            b"\r\n",
            b"3\nabc\r\n",
            b"3;x\nabc\r\n",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n0\r\n",
            b"0\r\n\n",
            b"0\r\na: b\n\r\n",
            b"11111111111111111\r\n",
            b"-1\r\n",
        ] {
            assert_eq!(feed(text), Progress::Broken, "{}", String::from_utf8_lossy(text));
        }
        let long = [&b"1;"[..], &vec![b'x'; MAX_LINE + 1]].concat();
        assert_eq!(feed(&long), Progress::Broken);
    }
}
