//! Files of any length made from the shipped real data, each line with an id of its own.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use millrace_schemas::partition_for_key;

const SHIPPED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../devstack/data/wikipedia-edits-2015-09-12.ndjson.gz"
);

/// Lines a test, unless the environment says otherwise.
pub fn lines(default: u64) -> u64 {
    crate::setting("MILLRACE_SURVIVAL_LINES", default)
}

/// Writes `lines` edits to `path`, `{"id":0,…}` to `{"id":lines-1,…}`; the shipped ones over and over.
pub fn write(path: &Path, lines: u64) -> PathBuf {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let mut id = 0;
    while id < lines {
        let shipped = BufReader::new(GzDecoder::new(File::open(SHIPPED).unwrap()));
        for line in shipped.lines().take(usize::try_from(lines - id).unwrap()) {
            let line = line.unwrap();
            writeln!(file, "{{\"id\":{id},{}", line.strip_prefix('{').unwrap()).unwrap();
            id += 1;
        }
    }
    file.flush().unwrap();
    path.to_owned()
}

/// Writes `lines` small edits, each with a key whose partition of `partitions` is as wanted for its id.
pub fn write_keyed<Wanted: Fn(i32) -> bool>(
    path: &Path,
    lines: u64,
    partitions: i32,
    wanted: impl Fn(u64) -> Wanted,
) -> PathBuf {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let mut keys = (0_u64..).map(|number| format!("k{number}"));
    for id in 0..lines {
        let fits = wanted(id);
        let key = keys
            .find(|key| fits(partition_for_key(key.as_bytes(), partitions)))
            .unwrap();
        writeln!(file, "{{\"id\":{id},\"key\":\"{key}\"}}").unwrap();
    }
    file.flush().unwrap();
    path.to_owned()
}
