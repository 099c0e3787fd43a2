//! Statements that run together.
//!
//! The connection has a thread of its own, and each message to it costs two switches between threads: more than a row does.
//! So all that a round writes goes over in one message, with one statement for each table.

use futures_util::TryStreamExt as _;
use sqlx::{
    AssertSqlSafe, Either, Encode, Executor as _, Sqlite, SqliteConnection, Type,
    sqlite::{SqliteArguments, SqliteRow},
};

/// How many rows one statement writes at most: SQLite takes no more than 32,766 values.
const ROWS_MAX: usize = 256;

/// A script of more rows is not kept prepared: hardly another one will have as many.
const KEPT_ROWS_MAX: usize = 64;

/// Statements with their values, in order.
#[derive(Debug, Default)]
pub(super) struct Script {
    text: String,
    values: Values,
    rows: usize,
}

/// Values, each for one question mark.
#[derive(Debug, Default)]
pub(super) struct Values(SqliteArguments);

impl Values {
    /// Adds the next.
    #[expect(clippy::expect_used, reason = "numbers, texts and bytes can always be bound")]
    pub(super) fn add<'v>(&mut self, value: impl Encode<'v, Sqlite> + Type<Sqlite>) -> &mut Self {
        sqlx::Arguments::add(&mut self.0, value).expect("a plain value");
        self
    }
}

impl Script {
    /// Adds a statement, and lets its values be added.
    pub(super) fn say(&mut self, statement: &'static str) -> &mut Values {
        self.text.push_str(statement);
        self.text.push(';');
        &mut self.values
    }

    /// Adds a statement about each of these rows: what is before them, how each is written, and what is after them. Without
    /// rows there is none.
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

    /// Runs the statements up to the first that fails. Returns the rows that were read, which are there also when a later
    /// statement has failed.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropped, the statements run on.
    pub(super) async fn run(self, connection: &mut SqliteConnection) -> (Vec<SqliteRow>, Result<(), sqlx::Error>) {
        // No value is ever part of the text.
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
    fn more_rows_than_a_statement_may_have_values_for_are_several_statements() {
        let mut script = Script::default();
        let rows: Vec<i64> = (0..2 * 256 + 1).collect();
        script.each(["INSERT INTO numbers VALUES ", "(?)", ""], &rows, |values, row| {
            values.add(*row);
        });
        assert_eq!(script.text.matches("INSERT").count(), 3);
        assert_eq!(script.text.matches('?').count(), rows.len());
        assert!(script.text.ends_with("VALUES (?);"));
        script.each(["DELETE FROM numbers WHERE number IN (", "?", ")"], &[0; 0], |_, _| {});
        assert!(!script.text.contains("DELETE"), "no statement about nothing");
    }
}
