//! How often each book is asked for, as a column of a CSV file says.

use std::path::{Path, PathBuf};

use pygmy_proto::BookId;

/// The column that names the book.
const ID_COLUMN: &str = "id";

/// A column of a CSV file: `csv:PATH:COLUMN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightsFile {
    /// The file, whose first line names its columns; one of them is `id`.
    pub path: PathBuf,
    /// The column with the weights.
    pub column: String,
}

/// Why a file gives no weights.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// It could not be read, or is no CSV.
    #[error("{path}: {error}")]
    Csv {
        /// The file.
        path: String,
        /// What is wrong with it.
        error: csv::Error,
    },
    /// It has no column of this name.
    #[error("{path}: there is no column {column:?}; there are {found}")]
    NoColumn {
        /// The file.
        path: String,
        /// The column.
        column: String,
        /// Those that there are.
        found: String,
    },
    /// A value cannot be what its column is for.
    #[error("{path}: line {line}, column {column}: {why}")]
    Value {
        /// The file.
        path: String,
        /// The line, from 1.
        line: u64,
        /// The column.
        column: String,
        /// What is wrong with the value.
        why: String,
    },
    /// There is no weight above 0 in it.
    #[error("{path}: column {column:?} has no weight above 0")]
    Empty {
        /// The file.
        path: String,
        /// The column.
        column: String,
    },
}

impl WeightsFile {
    /// Reads `PATH:COLUMN`. A path may have colons, a column may not.
    ///
    /// # Errors
    /// A sentence that says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.rsplit_once(':') {
            Some((path, column)) if !path.is_empty() && !column.is_empty() => {
                Ok(Self { path: path.into(), column: column.into() })
            }
            _ => Err(format!("{text:?}: csv:PATH:COLUMN, where COLUMN has the weights")),
        }
    }

    /// Every book of the file with its weight.
    ///
    /// # Errors
    /// What is wrong with the file, and where.
    pub fn read(&self) -> Result<Vec<(BookId, f64)>, WeightsError> {
        let path = self.path.display().to_string();
        let broken = |error: csv::Error| WeightsError::Csv { path: path.clone(), error };
        let mut reader = csv::Reader::from_path(Path::new(&self.path)).map_err(broken)?;
        let names = reader.headers().map_err(broken)?.clone();
        let place = |column: &str| {
            let found = names.iter().collect::<Vec<_>>().join(", ");
            let missing = || WeightsError::NoColumn { path: path.clone(), column: column.to_owned(), found };
            names.iter().position(|name| name == column).ok_or_else(missing)
        };
        let (id_place, weight_place) = (place(ID_COLUMN)?, place(&self.column)?);
        let mut weights = Vec::new();
        for record in reader.records() {
            let record = record.map_err(broken)?;
            let line = record.position().map_or(0, csv::Position::line);
            let wrong = |column: &str, why: String| WeightsError::Value {
                path: path.clone(),
                line,
                column: column.to_owned(),
                why,
            };
            let id = record.get(id_place).unwrap_or_default();
            let id = BookId::new(id).map_err(|error| wrong(ID_COLUMN, error.to_string()))?;
            let weight = record.get(weight_place).unwrap_or_default();
            weights.push((id, parse_weight(weight).map_err(|why| wrong(&self.column, why))?));
        }
        if weights.iter().all(|(_, weight)| *weight == 0.0) {
            return Err(WeightsError::Empty { path, column: self.column.clone() });
        }
        Ok(weights)
    }
}

fn parse_weight(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(weight) if weight.is_finite() && weight >= 0.0 => Ok(weight),
        Ok(weight) => Err(format!("{weight} is no weight: it must be 0 or more")),
        Err(_) => Err(format!("{text:?} is no number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, column: &str) -> Result<Vec<(BookId, f64)>, WeightsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("books.csv");
        std::fs::write(&path, text).unwrap();
        WeightsFile { path, column: column.into() }.read()
    }

    #[test]
    fn a_column_is_read_by_its_name() {
        let found = read("title,id,year,sold\n\"A, B\",a,1999,3\nC,b,2001,0.5\n", "sold").unwrap();
        assert_eq!(found, [(BookId::new("a").unwrap(), 3.0), (BookId::new("b").unwrap(), 0.5)]);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_and_where() {
        let missing = read("id,sold\na,1\n", "ratings").unwrap_err();
        assert!(
            matches!(&missing, WeightsError::NoColumn { column, found, .. } if column == "ratings" && found == "id, sold")
        );
        assert!(matches!(read("sold\n1\n", "sold"), Err(WeightsError::NoColumn { column, .. }) if column == "id"));
        assert!(matches!(read("", "sold"), Err(WeightsError::NoColumn { .. })));
        for (weight, why) in
            [("-1", "0 or more"), ("NaN", "0 or more"), ("inf", "0 or more"), ("many", "no number"), ("", "no number")]
        {
            let error = read(&format!("id,sold\na,1\nb,{weight}\n"), "sold").unwrap_err().to_string();
            assert!(error.contains("line 3, column sold") && error.contains(why), "{error}");
        }
        let error = read("id,sold\na b,1\n", "sold").unwrap_err().to_string();
        assert!(error.contains("line 2, column id"), "{error}");
        assert!(matches!(read("id,sold\n", "sold"), Err(WeightsError::Empty { .. })));
        assert!(matches!(read("id,sold\na,0\nb,0\n", "sold"), Err(WeightsError::Empty { .. })));
        assert!(matches!(read("id,sold\na,1,2\n", "sold"), Err(WeightsError::Csv { .. })));
        let nowhere = WeightsFile { path: "/nowhere/books.csv".into(), column: "sold".into() }.read().unwrap_err();
        assert!(nowhere.to_string().starts_with("/nowhere/books.csv: "), "{nowhere}");
    }

    #[test]
    fn a_path_may_have_colons() {
        let expected = WeightsFile { path: "a:b/c.csv".into(), column: "sold".into() };
        assert_eq!(WeightsFile::parse("a:b/c.csv:sold"), Ok(expected));
        for bad in ["", "sold", ":sold", "c.csv:"] {
            assert!(WeightsFile::parse(bad).is_err(), "{bad}");
        }
    }
}
