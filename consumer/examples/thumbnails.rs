//! Work that computes, and work that is cheaper together.
//!
//! `thumbnail.make` scales a grey picture down on threads that may block; it says how far it is, and stops when
//! it is no longer wanted. `thumbnail.index` takes many finished thumbnails at once, as one would insert
//! many rows by one statement.
//!
//!     cargo run --release --example thumbnails -- --exit-when-idle 5s

use std::process::ExitCode;
use std::time::Duration;

use millrace_consumer::{Batching, Context, Policy, TaskError, Worker};
use serde::{Deserialize, Serialize};

/// Pixels are made from a seed, so that a task is a line of JSON.
#[derive(Deserialize)]
struct Picture {
    width: u32,
    height: u32,
    seed: u32,
}

#[derive(Serialize)]
struct Thumbnail {
    width: u32,
    height: u32,
    brightness: u8,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
}

#[derive(Serialize)]
struct Indexed {
    name: String,
    together_with: usize,
}

/// Each pixel of a thumbnail is the mean of so many by so many.
const SCALE: u32 = 16;

fn make(picture: Picture, context: Context) -> Result<Thumbnail, TaskError> {
    let (width, height) = (picture.width / SCALE, picture.height / SCALE);
    if width == 0 || height == 0 {
        return Err(TaskError::permanent(format!(
            "{}x{} is too small: a side has {SCALE} pixels at least",
            picture.width, picture.height
        )));
    }
    let mut sum = 0_u64;
    for row in 0..height {
        // Nothing can stop a thread from outside: a long computation looks for itself.
        context.checkpoint()?;
        sum += (0..width)
            .map(|column| u64::from(mean(&picture, row, column)))
            .sum::<u64>();
        context.progress(row as f32 / height as f32, "scaling");
    }
    Ok(Thumbnail {
        width,
        height,
        brightness: u8::try_from(sum / (u64::from(width) * u64::from(height)))?,
    })
}

fn mean(picture: &Picture, row: u32, column: u32) -> u8 {
    let area = (row * SCALE..(row + 1) * SCALE)
        .flat_map(|y| (column * SCALE..(column + 1) * SCALE).map(move |x| (x, y)));
    let sum: u32 = area
        .map(|(x, y)| {
            picture
                .seed
                .wrapping_mul(x ^ y)
                .wrapping_add(x.wrapping_mul(y))
                & 0xFF
        })
        .sum();
    (sum / (SCALE * SCALE)).to_le_bytes()[0]
}

async fn index(entries: Vec<(Entry, Context)>) -> Vec<Result<Indexed, TaskError>> {
    let together_with = entries.len() - 1;
    // Here one call would carry all entries, with the fencing token of each for the side that keeps them.
    entries
        .into_iter()
        .map(|(Entry { name }, context)| {
            context.checkpoint()?;
            if name.is_empty() {
                return Err(TaskError::permanent("an entry needs a name"));
            }
            Ok(Indexed {
                name,
                together_with,
            })
        })
        .collect()
}

fn main() -> ExitCode {
    let batches = Batching {
        size: 500,
        linger: Duration::from_millis(20),
    };
    Worker::from_args()
        .register_blocking("thumbnail.make", make)
        .with(Policy {
            timeout: Some(Duration::from_secs(60)),
            max_in_flight: Some(4),
            ..Policy::default()
        })
        .register_batch("thumbnail.index", batches, index)
        .run()
}
