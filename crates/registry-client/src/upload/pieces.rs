//! The pieces in which the bytes of blobs go to one registry: one PUT, or PATCH requests of some length and a PUT that closes the session
//! (distribution-spec, "Pushing a blob monolithically" and "in chunks"). Pure; learnt from what became of earlier requests.
//!
//! It begins with one PUT for each blob, which costs the fewest requests. A registry that keeps what a broken request brought stays
//! there. One that loses it gets chunks that end before the line breaks; one that refuses large requests, smaller ones.

/// What a chunk has at most.
const LARGEST: u64 = 20 << 20;
/// What it has at least after one break, which may have been chance. Also the least that object stores take as a part.
const FIRST: u64 = 5 << 20;
/// No smaller chunks than these: there would be more requests than bytes.
const SMALLEST: u64 = 256 << 10;

/// What a request of a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One PUT brings the whole blob.
    Whole,
    /// A PATCH brings a part of it.
    Chunk,
    /// A PUT without bytes ends the session.
    Close,
}

/// One request of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) form: Form,
    /// Its bytes.
    pub(super) length: u64,
    /// The limit when it was planned.
    most: u64,
}

/// What is known about a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pieces {
    /// The most bytes in one request.
    most: u64,
    /// Only smaller blobs may go as one PUT.
    whole_below: u64,
    chunks: Chunks,
    /// Whether each request wants a connection of its own: the line may break after so many bytes, whoever sent them.
    apart: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunks {
    Untried,
    Taken,
    Refused,
}

impl Default for Pieces {
    fn default() -> Self {
        Self { most: u64::MAX, whole_below: u64::MAX, chunks: Chunks::Untried, apart: false }
    }
}

impl Pieces {
    /// The next request of a session that has `at` of `size` bytes, at a registry that wants chunks of at least `least`.
    pub(super) fn next(&self, at: u64, size: u64, least: u64) -> Plan {
        let (rest, most) = (size.saturating_sub(at), self.most);
        let whole = at == 0 && (self.chunks == Chunks::Refused || size <= most && size < self.whole_below);
        match rest {
            0 => Plan { form: Form::Close, length: 0, most },
            _ if whole => Plan { form: Form::Whole, length: size, most },
            _ => Plan { form: Form::Chunk, length: rest.min(most.max(least)), most },
        }
    }

    /// Whether a session that has some bytes can be continued at all.
    pub(super) fn continues(&self) -> bool {
        self.chunks != Chunks::Refused
    }

    /// Whether each request wants a connection of its own.
    pub(super) fn apart(&self) -> bool {
        self.apart
    }

    /// A chunk was taken.
    pub(super) fn taken(&mut self) {
        self.chunks = Chunks::Taken;
    }

    /// A request broke off after `moved` bytes, and the registry kept nothing of them.
    pub(super) fn lost(&mut self, plan: Plan, moved: u64) {
        let most = match plan.most {
            _ if moved == 0 => return,
            // what left here may still have been in some buffer on the way
            u64::MAX => (moved / 4).clamp(FIRST, LARGEST),
            // a request much smaller than the limit says nothing about it
            most if plan.length < most / 2 => return,
            most => (most / 4).max(SMALLEST),
        };
        self.most = self.most.min(most);
        self.apart = true;
    }

    /// A request was answered with a refusal of its form. Tells whether there is another form to try.
    pub(super) fn refused(&mut self, plan: Plan, status: u16) -> bool {
        let smaller = (plan.length / 4).clamp(SMALLEST, LARGEST);
        match (status, plan.form) {
            (413, Form::Whole) => {
                self.most = self.most.min(smaller);
                self.whole_below = self.whole_below.min(plan.length);
                self.chunks != Chunks::Refused
            }
            (413, Form::Chunk) => {
                self.most = self.most.min(smaller);
                plan.length > SMALLEST
            }
            (405 | 411 | 415 | 501, Form::Whole) => {
                self.whole_below = 0;
                self.chunks != Chunks::Refused
            }
            (400 | 404 | 405 | 411 | 415 | 501, Form::Chunk) if self.chunks != Chunks::Taken => self.refuses_chunks(),
            _ => false,
        }
    }

    /// The registry takes no chunk, or no second one. Tells whether one PUT is left to try.
    pub(super) fn refuses_chunks(&mut self) -> bool {
        self.chunks = Chunks::Refused;
        self.whole_below > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn whole(size: u64) -> Plan {
        Pieces::default().next(0, size, 0)
    }

    #[test]
    fn a_blob_goes_as_one_put_and_what_is_left_of_it_as_one_patch() {
        let pieces = Pieces::default();
        assert_eq!(pieces.next(0, 9 << 30, 0), Plan { form: Form::Whole, length: 9 << 30, most: u64::MAX });
        assert_eq!(pieces.next(5, 9 << 30, 0), Plan { form: Form::Chunk, length: (9 << 30) - 5, most: u64::MAX });
        assert_eq!((pieces.next(0, 0, 0).form, pieces.next(7, 7, 0).form), (Form::Close, Form::Close));
    }

    #[test]
    fn what_was_lost_goes_in_smaller_pieces_apart() {
        // (request, bytes that moved) → the limit afterwards
        let mut pieces = Pieces::default();
        let table = [
            (whole(100 * MIB), 0, u64::MAX),
            (whole(100 * MIB), 90 * MIB, 20 * MIB),
            (whole(100 * MIB), 40 * MIB, 10 * MIB),
            (whole(100 * MIB), 90 * MIB, 10 * MIB),
            (whole(100 * MIB), 12 * MIB, 5 * MIB),
        ];
        for (plan, moved, most) in table {
            pieces.lost(plan, moved);
            assert_eq!((pieces.most, pieces.apart), (most, most != u64::MAX), "{plan:?} {moved}");
        }
        let chunk = pieces.next(0, 100 * MIB, 0);
        assert_eq!((chunk.form, chunk.length), (Form::Chunk, 5 * MIB));
        // a small blob is no larger request than a chunk; that it breaks says nothing
        let small = pieces.next(0, 2 * MIB, 0);
        assert_eq!(small.form, Form::Whole);
        pieces.lost(small, MIB);
        assert_eq!(pieces.most, 5 * MIB);
        // those that broke at the same time count once
        pieces.lost(chunk, MIB);
        pieces.lost(chunk, MIB);
        assert_eq!(pieces.most, 5 * MIB / 4);
        for _ in 0..9 {
            pieces.lost(pieces.next(0, 100 * MIB, 0), 1);
        }
        assert_eq!(pieces.next(0, 100 * MIB, 0).length, SMALLEST);
        assert_eq!(pieces.next(0, 100 * MIB, MIB).length, MIB, "the registry's own least size");
        assert_eq!(pieces.next(99 * MIB, 100 * MIB, 9 * MIB).length, MIB, "the last may be smaller");
    }

    #[test]
    fn a_limit_of_size_is_found_after_five_refusals() {
        for limit in [300 * 1024, MIB, 10 * MIB, 100 * MIB] {
            let mut pieces = Pieces::default();
            let mut refusals = 0;
            loop {
                let plan = pieces.next(0, 4 << 30, 0);
                if plan.length <= limit {
                    break;
                }
                assert!(pieces.refused(plan, 413), "{plan:?}");
                refusals += 1;
            }
            assert!(refusals <= 5, "{limit}: {refusals}");
            assert_eq!(pieces.next(0, MIB / 4, 0).form, Form::Whole, "small ones still go as one");
            assert!(!pieces.apart);
        }
        let mut pieces = Pieces { most: SMALLEST, ..Pieces::default() };
        assert!(!pieces.refused(pieces.next(0, MIB, 0), 413), "there is nothing smaller");
    }

    #[test]
    fn each_form_is_tried_once() {
        let mut pieces = Pieces::default();
        assert!(pieces.refused(whole(MIB), 405));
        let chunk = pieces.next(0, MIB, 0);
        assert_eq!((chunk.form, chunk.length), (Form::Chunk, MIB));
        assert!(!pieces.refused(chunk, 405), "both are refused");

        let mut pieces = Pieces::default();
        pieces.lost(whole(100 * MIB), 50 * MIB);
        let chunk = pieces.next(0, 100 * MIB, 0);
        assert!(pieces.continues() && pieces.refused(chunk, 404) && !pieces.continues());
        assert_eq!(pieces.next(0, 100 * MIB, 0).form, Form::Whole);
        assert!(!pieces.refused(pieces.next(0, 100 * MIB, 0), 405));
    }

    #[test]
    fn a_registry_that_took_chunks_does_not_refuse_them_later() {
        let mut pieces = Pieces::default();
        pieces.taken();
        for status in [400, 404, 405, 416] {
            assert!(!pieces.refused(pieces.next(1, MIB, 0), status), "{status}");
        }
        assert!(pieces.continues());
        assert!(pieces.refuses_chunks(), "unless it is plain that it takes only the first");
    }

    #[test]
    fn other_refusals_are_none_of_the_form() {
        let mut pieces = Pieces::default();
        for status in [400, 401, 403, 404, 409, 500] {
            assert!(!pieces.refused(whole(MIB), status), "{status}");
        }
        assert_eq!(pieces, Pieces::default());
    }
}
