//! Sizes as people write them.

use ferry_archive::volumes::MIN_VOLUME;

/// Bytes: a number, perhaps with a fraction, and a unit. `K`, `M`, `G`, `T` (with or without `B`) are decimal as media are sold, so that
/// `4G` fits FAT32; `KiB`, `MiB`, `GiB`, `TiB` are binary.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let fail = || format!("`{text}` is no size; write 4G, 650M, 4.7G or 700MiB");
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000_u64.pow(2),
        "g" | "gb" => 1000_u64.pow(3),
        "t" | "tb" => 1000_u64.pow(4),
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(fail()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 {
        return Err(fail());
    }
    let whole: u64 = whole.parse().map_err(|_| fail())?;
    let part: u64 = fraction.parse().map_err(|_| fail())?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| fail())?);
    let part = u64::try_from(u128::from(part) * u128::from(unit) / scale).map_err(|_| fail())?;
    let bytes = whole.checked_mul(unit).and_then(|bytes| bytes.checked_add(part)).ok_or_else(fail)?;
    match bytes {
        MIN_VOLUME.. => Ok(bytes),
        _ => Err(format!("{bytes} bytes are too few for a volume; {MIN_VOLUME} is the least")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_they_are_written() {
        for (text, bytes) in [
            ("4G", 4_000_000_000),
            ("4g", 4_000_000_000),
            ("650MB", 650_000_000),
            ("4.7G", 4_700_000_000),
            ("700MiB", 734_003_200),
            ("0.5 GiB", 536_870_912),
            ("123456", 123_456),
            ("1.000000001G", 1_000_000_001),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for bad in
            ["", "G", "4X", "4 G B", "-4G", "1.2.3G", "1e9", ".5G", "5.G", "10", "99999999999T", "18446744073709551616"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("4G").is_ok_and(|bytes| bytes < 1 << 32), "FAT32 takes less than 4 GiB");
    }
}
