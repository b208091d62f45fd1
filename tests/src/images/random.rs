//! Bytes that look random and are the same on every run.

/// xorshift64*: small, quick, and good enough to be incompressible.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator; the same seed gives the same bytes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // a state of zero would stay zero; the multiplication spreads small seeds
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// `len` incompressible bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.draw().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// `len` bytes of which about `share` (0 to 1) stays after compression: runs of random bytes and of zeros by turns.
    pub fn mixed(&mut self, len: usize, share: f64) -> Vec<u8> {
        const RUN: usize = 4096;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of 4096")]
        let noisy = ((RUN as f64) * share.clamp(0.0, 1.0)) as usize;
        let mut bytes = Vec::with_capacity(len + RUN);
        while bytes.len() < len {
            bytes.extend(self.bytes(noisy));
            bytes.resize(bytes.len() + RUN - noisy, 0);
        }
        bytes.truncate(len);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_repeatable_and_depends_on_the_seed() {
        assert_eq!(Random::new(7).bytes(100), Random::new(7).bytes(100));
        assert_ne!(Random::new(7).bytes(100), Random::new(8).bytes(100));
        assert_eq!(Random::new(1).mixed(10_000, 0.0), vec![0; 10_000]);
    }
}
