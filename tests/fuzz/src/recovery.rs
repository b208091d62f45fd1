//! Recovery files.

use ferry_archive::recovery::page::Page;

/// A page that is read is one that would be written, within its limits; a checksum that agrees makes no difference to that. All of it
/// stays small: what a page says of itself costs no memory.
pub fn recovery_page(input: &[u8]) {
    let mut page = input.to_vec();
    page.resize(4096, 0);
    for bytes in [page.clone(), ferry_archive::fuzz::recovery_page(&page)] {
        let Some(page) = Page::parse(&bytes) else { continue };
        assert_eq!(page.print(), bytes);
        let geometry = &page.set.geometry;
        let (volumes, originals) = (geometry.volumes(), geometry.originals());
        assert!((1..=u64::from(originals)).contains(&volumes) && originals <= 2048 && geometry.recovery() <= originals);
        let column = (u64::from(originals) + u64::from(geometry.recovery())) * u64::from(geometry.chunk());
        assert!(column <= 48 << 20, "a column fits in memory");
        // every byte of every volume is in one shard
        let mut ends = vec![0; usize::try_from(volumes).expect("few")];
        for shard in 0..originals {
            let (volume, place) = geometry.place(shard);
            let end = &mut ends[usize::try_from(volume).expect("few")];
            assert!(place.start == *end && place.end - place.start <= geometry.shard());
            *end = place.end;
        }
        assert_eq!(ends.iter().sum::<u64>(), geometry.size());
        let files = geometry.recovery_files();
        assert!(usize::from(page.file) <= files.len());
        assert_eq!(
            files.iter().map(|shards| u64::from(shards.end - shards.start)).sum::<u64>(),
            u64::from(geometry.recovery())
        );
        assert!(geometry.volume().is_none_or(|volume| files.iter().all(|shards| geometry.file_size(shards) <= volume)));
    }
}
