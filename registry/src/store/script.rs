//! Statements that are sent to the database in one message.
//!
//! The connection runs on a thread of its own, and each message to it costs two thread switches, which is more than
//! writing a row. Therefore a round is written with one message that contains one statement per table.

use futures_util::TryStreamExt as _;
use sqlx::{
    AssertSqlSafe, Either, Encode, Executor as _, Sqlite, SqliteConnection, Type,
    sqlite::{SqliteArguments, SqliteRow},
};

/// Maximum number of rows per statement: SQLite accepts at most 32,766 values.
const ROWS_MAX: usize = 256;

/// A script with more rows is not cached as a prepared statement: few other scripts will have the same number of rows.
const KEPT_ROWS_MAX: usize = 64;

/// Statements with their values, in order.
#[derive(Debug, Default)]
pub(super) struct Script {
    text: String,
    values: Values,
    rows: usize,
}

/// Values, one for each question mark.
#[derive(Debug, Default)]
pub(super) struct Values(SqliteArguments);

impl Values {
    /// Adds the next value.
    #[expect(clippy::expect_used, reason = "numbers, texts and bytes can always be bound")]
    pub(super) fn add<'v>(&mut self, value: impl Encode<'v, Sqlite> + Type<Sqlite>) -> &mut Self {
        sqlx::Arguments::add(&mut self.0, value).expect("a plain value");
        self
    }
}

impl Script {
    /// Adds a statement, and returns the list that takes its values.
    pub(super) fn say(&mut self, statement: &'static str) -> &mut Values {
        self.text.push_str(statement);
        self.text.push(';');
        &mut self.values
    }

    /// Adds a statement that covers all rows: the text before the rows, the text for each row, and the text after them.
    /// Adds several statements if there are too many rows for one, and none if there are no rows.
    pub(super) fn each<Row>(
        &mut self,
        [before, row, after]: [&'static str; 3],
        rows: &[Row],
        mut add: impl FnMut(&mut Values, &Row),
    ) {
        for some in rows.chunks(ROWS_MAX) {
            self.text.push_str(before);
            for (index, of_row) in some.iter().enumerate() {
                self.text.push_str(if index == 0 { "" } else { "," });
                self.text.push_str(row);
                add(&mut self.values, of_row);
            }
            self.text.push_str(after);
            self.text.push(';');
        }
        self.rows += rows.len();
    }

    /// Runs the statements up to the first that fails. Returns the rows that were read, including those read before a
    /// failure.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: if the future is dropped, the statements continue to run.
    pub(super) async fn run(self, connection: &mut SqliteConnection) -> (Vec<SqliteRow>, Result<(), sqlx::Error>) {
        // Values are never part of the text.
        let text = AssertSqlSafe(self.text);
        let query = sqlx::query_with(text, self.values.0).persistent(self.rows <= KEPT_ROWS_MAX);
        let mut results = connection.fetch_many(query);
        let mut rows = Vec::new();
        loop {
            match results.try_next().await {
                Ok(Some(Either::Right(row))) => rows.push(row),
                Ok(Some(Either::Left(_done))) => {}
                Ok(None) => return (rows, Ok(())),
                Err(error) => return (rows, Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_rows_for_one_statement_are_split_into_several() {
        let mut script = Script::default();
        let rows: Vec<i64> = (0..2 * 256 + 1).collect();
        script.each(["INSERT INTO numbers VALUES ", "(?)", ""], &rows, |values, row| {
            values.add(*row);
        });
        assert_eq!(script.text.matches("INSERT").count(), 3);
        assert_eq!(script.text.matches('?').count(), rows.len());
        assert!(script.text.ends_with("VALUES (?);"));
        script.each(["DELETE FROM numbers WHERE number IN (", "?", ")"], &[0; 0], |_, _| {});
        assert!(!script.text.contains("DELETE"), "no statement without rows");
    }
}
