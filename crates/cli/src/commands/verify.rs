//! `ferry verify`.

use std::sync::Arc;

use crate::failure::{End, Error};
use crate::progress::Meter;
use crate::{args, keys, print};

pub(crate) async fn run(args: args::Verify) -> Result<(), End> {
    let bundle = Arc::new(keys::open(&args.bundle, &args.trust)?);
    let threads = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let meter = Meter::new("verifying", bundle.size(), args.talk.quiet);
    let (reader, counter, cold) = (Arc::clone(&bundle), Arc::clone(&meter), args.cold);
    let work = move || reader.verify(threads, cold, &|n| counter.add(n));
    let verified = tokio::task::spawn_blocking(work).await.map_err(|e| Error::Runtime(std::io::Error::other(e)))?;
    meter.finish();
    let verified = verified?;
    let name = keys::full_name(&bundle);
    if args.json {
        let value = serde_json::json!({
            "name": bundle.head().name, "version": bundle.head().version,
            "signer": bundle.signed().signers.first().map(|signer| keys::full_id(&signer.key.key)),
            "signers": keys::signers_json(bundle.signed()), "sums": bundle.sums_digest(),
            "bytes": verified.bytes, "blobs": verified.blobs, "cold": args.cold,
        });
        print::out(&super::pretty(&value)?);
    } else {
        let signer = keys::signed_by(bundle.signed());
        let bytes = print::bytes(verified.bytes);
        let how = if args.cold { "read from the medium and checked" } else { "checked" };
        print::talk(&format!("{name} is whole: {signer}, {}, {bytes} {how}", print::count(verified.blobs, "blob")));
    }
    Ok(())
}
