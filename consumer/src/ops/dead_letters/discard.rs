//! `consumer dead-letters discard`: letters that nobody needs to look at again.

use millrace_settings::exit;
use millrace_store::Purpose;
use millrace_store::discard::{self, Terms};
use millrace_store::letters::LetterPlace;
use millrace_store::operations_log::Journal;

use super::args::DiscardArgs;
use super::choice::Choice;
use super::tables::Tables;
use super::tally::Tally;

/// Discards the chosen letters and prints the counts.
///
/// # Errors
/// When a setting is wrong or the database does not answer; what was discarded by then stays so.
pub async fn run(args: &DiscardArgs) -> anyhow::Result<u8> {
    let tables = Tables::new(&args.tables)?;
    let mut reading = tables.database.connect(Purpose::Reading).await?;
    let mut choice = Choice::new(&args.choice, &mut reading).await?;
    let by = args.by.clone().unwrap_or_else(millrace_settings::operator);
    let terms = Terms {
        by: &by,
        reason: &args.because,
    };
    let mut doing = if args.choice.dry_run {
        None
    } else {
        let mut connection = tables.database.connect(Purpose::Operations).await?;
        let about = serde_json::json!({
            "filter": args.choice.filter.filter(false).describe(),
            "limit": args.choice.limit,
        });
        let because = Some(args.because.as_str());
        let journal = Journal::open(&mut connection, &by, "discard", because, about).await?;
        Some((connection, journal))
    };
    let mut tally = Tally::new(args.choice.dry_run);
    loop {
        let page = choice.next(&mut reading, &tables.consumer).await?;
        if page.is_empty() {
            break;
        }
        let done = match &mut doing {
            None => page.iter().map(|letter| letter.place).collect(),
            Some((connection, journal)) => {
                let places: Vec<LetterPlace> = page.iter().map(|letter| letter.place).collect();
                discard::discard(connection, &tables.consumer, &places, terms, journal).await?
            }
        };
        tally.close((page.len() - done.len()) as u64);
        for letter in &page {
            tally.count(letter, done.contains(&letter.place));
        }
    }
    tally.print(args.tables.output.format, "discarded")?;
    Ok(exit::DONE)
}
