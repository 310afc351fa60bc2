//! What was found, for people, for programs and for the log.

use std::fmt::Write as _;

use serde::Serialize;

/// The longest text of a row: some of it is what others say.
const LONGEST: usize = 500;

/// How it stands with something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It could not, or need not, be looked at.
    Skipped,
    /// It is as it must be.
    Ok,
    /// It works, but not as it should, or it could not be seen whether it does.
    Warning,
    /// Uploads will fail, or something that the configuration asks for will not happen.
    Failed,
}

impl Status {
    /// How it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What kind of thing.
    pub name: &'static str,
    /// Which one.
    pub subject: String,
    /// How it stands with it.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Row {
    /// It is as it must be.
    pub fn ok(name: &'static str, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::of(Status::Ok, name, &subject.into(), &found.into(), None)
    }

    /// It could not, or need not, be looked at.
    pub fn skipped(name: &'static str, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::of(Status::Skipped, name, &subject.into(), &found.into(), None)
    }

    /// It works, but not as it should.
    pub fn warning(
        name: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::of(Status::Warning, name, &subject.into(), &found.into(), Some(remedy.into()))
    }

    /// It does not work.
    pub fn failed(
        name: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::of(Status::Failed, name, &subject.into(), &found.into(), Some(remedy.into()))
    }

    fn of(status: Status, name: &'static str, subject: &str, found: &str, remedy: Option<String>) -> Self {
        // What others say must not steer the terminal that it ends on.
        let shown = |text: &str| text.chars().filter(|character| !character.is_control()).take(LONGEST).collect();
        Self { name, subject: shown(subject), status, found: shown(found), remedy }
    }
}

/// All that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The worst of all, where what was skipped counts for nothing.
    pub status: Status,
    /// Each thing, in an order that does not change.
    pub checks: Vec<Row>,
}

impl Report {
    /// The report with these rows.
    pub fn new(checks: Vec<Row>) -> Self {
        let status = checks.iter().map(|row| row.status).max().unwrap_or(Status::Ok).max(Status::Ok);
        Self { status, checks }
    }

    /// A table for people: each row a line, with what to do about it below.
    pub fn table(&self) -> String {
        const HEAD: [&str; 4] = ["STATUS", "CHECK", "SUBJECT", "FOUND"];
        let width = |head: &str, cell: fn(&Row) -> &str| {
            let cells = self.checks.iter().map(|row| cell(row).chars().count());
            cells.max().unwrap_or(0).max(head.len())
        };
        let status = width(HEAD[0], |row| row.status.as_str());
        let name = width(HEAD[1], |row| row.name);
        let subject = width(HEAD[2], |row| &row.subject);
        let mut table = String::new();
        let mut line = |cells: [&str; 4]| {
            let [first, second, third, fourth] = cells;
            let text = format!("{first:status$}  {second:name$}  {third:subject$}  {fourth}");
            table.push_str(text.trim_end());
            table.push('\n');
        };
        line(HEAD);
        for row in &self.checks {
            line([row.status.as_str(), row.name, &row.subject, &row.found]);
            if let Some(remedy) = &row.remedy {
                line(["", "", "", &format!("→ {remedy}")]);
            }
        }
        // Writing to a text cannot fail.
        let _ = writeln!(table, "\n{}", self.summary());
        table
    }

    /// How many there are of each.
    fn summary(&self) -> String {
        let count = |status| self.checks.iter().filter(|row| row.status == status).count();
        format!(
            "{} ok, {} with a warning, {} failed, {} skipped",
            count(Status::Ok),
            count(Status::Warning),
            count(Status::Failed),
            count(Status::Skipped),
        )
    }

    /// One line for each warning and each failure, and one for all.
    pub fn log(&self) {
        for row in &self.checks {
            let remedy = row.remedy.as_deref().unwrap_or_default();
            match row.status {
                Status::Ok | Status::Skipped => {}
                Status::Warning | Status::Failed => tracing::warn!(
                    check = row.name,
                    subject = row.subject,
                    status = row.status.as_str(),
                    remedy,
                    "the set-up is not as it should be: {}",
                    row.found
                ),
            }
        }
        tracing::info!(status = self.status.as_str(), "the set-up was looked at: {}", self.summary());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_what_to_do_stands_below() {
        let report = Report::new(vec![
            Row::ok("store", "/run/redis.sock", "Redis 7.0.15"),
            Row::failed("permissions", "media", "no storage.objects.get", "grant it"),
            Row::skipped("webhook", "", "none\u{1b}[2J"),
        ]);
        let expected = "\
STATUS   CHECK        SUBJECT          FOUND
ok       store        /run/redis.sock  Redis 7.0.15
failed   permissions  media            no storage.objects.get
                                       → grant it
skipped  webhook                       none[2J

1 ok, 0 with a warning, 1 failed, 1 skipped
";
        assert_eq!(report.table(), expected);
    }

    #[test]
    fn the_status_of_all_is_the_worst_and_json_leaves_out_what_is_not_there() {
        let (ok, skipped) = (Row::ok("a", "s", "f"), Row::skipped("b", "", "f"));
        let (warning, failed) = (Row::warning("c", "", "f", "r"), Row::failed("d", "", "f", "r"));
        for (rows, expected) in [
            (vec![], Status::Ok),
            (vec![skipped.clone()], Status::Ok),
            (vec![ok.clone(), warning.clone(), skipped], Status::Warning),
            (vec![failed, warning, ok.clone()], Status::Failed),
        ] {
            assert_eq!(Report::new(rows).status, expected);
        }
        let json = serde_json::to_string(&Report::new(vec![ok])).unwrap();
        let expected = r#"{"status":"ok","checks":[{"name":"a","subject":"s","status":"ok","found":"f"}]}"#;
        assert_eq!(json, expected);
    }
}
