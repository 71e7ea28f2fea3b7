//! The letters that something is done to, page by page, so that any number of them takes little memory.

use millrace_store::Trouble;
use millrace_store::letters::{self, Letter, LetterPlace, Selection};
use millrace_store::position::Consumer;
use sqlx::PgConnection;

use super::args::ChoiceArgs;
use crate::exit_code::Refusal;

/// Letters read at once, without their bytes.
const PAGE: u64 = 1_000;

/// A choice of letters, and how far it has been gone through.
pub struct Choice {
    selection: Selection,
    after: Option<LetterPlace>,
    left: Option<u64>,
}

impl Choice {
    /// Fixes the choice at this moment: letters that come later are not in it.
    ///
    /// # Errors
    /// When neither a filter nor `--all` is given, or the database does not answer.
    pub async fn new(args: &ChoiceArgs, connection: &mut PgConnection) -> anyhow::Result<Self> {
        let filter = args.filter.filter(false);
        if filter.is_open() && !args.all {
            return Err(Refusal::usage(
                "no filter is given, which would mean every dead letter: give a filter, or --all",
            )
            .into());
        }
        Ok(Self {
            selection: filter.now(connection).await?,
            after: None,
            left: args.limit,
        })
    }

    /// The next letters by place; empty at the end.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn next(
        &mut self,
        connection: &mut PgConnection,
        consumer: &Consumer,
    ) -> Result<Vec<Letter>, Trouble> {
        let most = self.left.map_or(PAGE, |left| left.min(PAGE));
        if most == 0 {
            return Ok(Vec::new());
        }
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let page = letters::page(connection, consumer, &self.selection, self.after, most).await?;
        if let Some(last) = page.last() {
            self.after = Some(last.place);
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(page.len() as u64);
        }
        Ok(page)
    }
}
