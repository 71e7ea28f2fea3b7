//! Prints what one event costs: decoding and encoding by hand against the Avro library, an id as 16
//! bytes against one as text, and the hashes. Run it in release:
//! `cargo run --release -p millrace-schemas --example decode_speed`, with a word to measure only the
//! lines that have it.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Schema, Uuid};
use millrace_schemas::{CURRENT_SCHEMA, Decoders, Framing, TaskEvent, TaskId, encode};
use serde::{Deserialize, Serialize};

/// The event as serde sees it.
#[derive(Serialize, Deserialize)]
#[serde(rename = "TaskEvent")]
struct SerdeEvent {
    task_id: Uuid,
    task_type: String,
    tenant: String,
    key: Option<String>,
    dedup_key: Option<String>,
    submitted_at: i64,
    run_at: Option<i64>,
    deadline: Option<i64>,
    content_type: String,
    reply: bool,
    callback: Option<String>,
    #[serde(with = "apache_avro::serde::bytes")]
    payload: Vec<u8>,
}

/// A schema that needs resolution: the current one with its fields in the opposite order.
fn other_schema() -> Result<String, Box<dyn Error>> {
    let mut schema: serde_json::Value = serde_json::from_str(CURRENT_SCHEMA)?;
    let fields = schema
        .get_mut("fields")
        .and_then(|fields| fields.as_array_mut());
    fields.ok_or("the schema has no fields")?.reverse();
    Ok(schema.to_string())
}

fn sample() -> TaskEvent {
    TaskEvent {
        task_id: TaskId::mint(),
        task_type: "wikipedia.edit".into(),
        tenant: "default".into(),
        key: Some("#en.wikipedia".into()),
        dedup_key: Some("edit-0000123456".into()),
        submitted_at: 1_763_710_000_123_456,
        run_at: None,
        deadline: None,
        content_type: "application/json".into(),
        reply: false,
        callback: None,
        payload: br#"{"page":"Salo Toraut","user":"GELongstreet","delta":36,"isNew":false,"comment":"/* Others */ moved the section","channel":"en"}"#.to_vec(),
    }
}

/// The least time of one call over several rounds, which is the one least disturbed.
fn measure<T>(name: &str, mut call: impl FnMut() -> T) {
    const CALLS: u32 = 200_000;
    if std::env::args()
        .nth(1)
        .is_some_and(|only| !name.contains(&only))
    {
        return;
    }
    let round = |call: &mut dyn FnMut() -> T| {
        let start = Instant::now();
        for _ in 0..CALLS {
            black_box(call());
        }
        start.elapsed()
    };
    let least = (0..7)
        .map(|_| round(&mut call))
        .min()
        .unwrap_or(Duration::MAX);
    println!(
        "{:>9.1} ns  {name}",
        least.as_secs_f64() * 1e9 / f64::from(CALLS)
    );
}

fn main() -> Result<(), Box<dyn Error>> {
    let event = sample();
    let mut framed = Vec::new();
    encode(&event.as_ref(), Framing::SingleObject, &mut framed);
    let datum = framed.get(10..).ok_or("no datum")?;
    println!(
        "one event of {} bytes, payload {}",
        framed.len(),
        event.payload.len()
    );

    let schema = Schema::parse_str(CURRENT_SCHEMA)?;
    let reader = GenericDatumReader::builder(&schema).build()?;
    let writer = GenericDatumWriter::builder(&schema).build()?;
    let serde_event: SerdeEvent = reader.read_deser(&mut { datum })?;

    let other_schema = other_schema()?;
    let mut decoders = Decoders::new();
    let fingerprint = decoders.learn(&other_schema)?;
    let other = Schema::parse_str(&other_schema)?;
    let other_datum = GenericDatumWriter::builder(&other)
        .build()?
        .write_ser_to_vec(&serde_event)?;
    let other_framed = [
        &[0xC3, 0x01],
        fingerprint.to_le_bytes().as_slice(),
        &other_datum,
    ]
    .concat();
    decoders.decode(&other_framed)?;

    println!("decode");
    measure("borrowed decoder", || decoders.decode(black_box(&framed)));
    measure("borrowed decoder, then a copy that owns its fields", || {
        decoders
            .decode(black_box(&framed))
            .map(|decoded| decoded.into_owned())
    });
    measure("apache-avro read_deser", || {
        reader.read_deser::<SerdeEvent>(&mut black_box(datum))
    });
    measure("resolved from another schema", || {
        decoders.decode(black_box(&other_framed))
    });

    println!("encode");
    let mut out = Vec::with_capacity(1024);
    measure("encode", || {
        out.clear();
        encode(&black_box(&event).as_ref(), Framing::SingleObject, &mut out);
    });
    measure("apache-avro write_ser", || {
        out.clear();
        writer.write_ser(&mut out, black_box(&serde_event))
    });

    println!("task id");
    let text = event.task_id.to_string();
    measure("from 16 bytes", || {
        TaskId::from_bytes(*black_box(event.task_id.as_bytes()))
    });
    measure("from 36 characters", || {
        black_box(text.as_str()).parse::<TaskId>()
    });
    measure("mint", TaskId::mint);

    println!("hashes");
    measure("fingerprint", || black_box(&event).as_ref().fingerprint());
    measure("dedup hash", || black_box(&event).as_ref().dedup_hash());
    Ok(())
}
