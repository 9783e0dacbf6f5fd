//! Pieces of a message, cut where its stretches end.

/// How far a message was read.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    position: u64,
    at: usize,
    /// More came than there are stretches for.
    is_too_far: bool,
}

/// A part of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut<'a> {
    /// These octets are in this stretch.
    Octets(&'a [u8]),
    /// It has no more.
    End,
}

impl Walk {
    /// From this octet of the message on.
    pub fn from(position: u64) -> Self {
        Walk { position, at: 0, is_too_far: false }
    }

    /// Hands over the next piece, cut: each time the number of the stretch with octets of it, or with its end, which comes as soon as
    /// it can.
    pub fn piece<'a>(
        &mut self,
        end: impl Fn(usize) -> Option<u64>,
        mut piece: &'a [u8],
        mut visit: impl FnMut(usize, Cut<'a>),
    ) {
        while let Some(end) = end(self.at) {
            let left = usize::try_from(end.saturating_sub(self.position)).unwrap_or(usize::MAX);
            let (of_it, rest) = piece.split_at(left.min(piece.len()));
            if !of_it.is_empty() {
                visit(self.at, Cut::Octets(of_it));
                self.position += of_it.len() as u64;
                piece = rest;
            }
            if self.position < end {
                return;
            }
            visit(self.at, Cut::End);
            self.at += 1;
        }
        self.is_too_far |= !piece.is_empty();
    }

    /// Whether all of so many stretches were read, and nothing behind them.
    pub fn is_at_end(&self, stretches: usize) -> bool {
        self.at == stretches && !self.is_too_far
    }
}
