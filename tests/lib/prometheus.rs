//! Metrics as a scraper reads them: OpenMetrics text, strictly.

use std::collections::{HashMap, HashSet};
use std::process::Command;

use crate::namespace::must;

/// All samples of a scrape.
#[derive(Clone, Debug)]
pub struct Metrics(Vec<Sample>);

/// One number.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The series' name.
    pub name: String,
    /// Names and values.
    pub labels: Vec<(String, String)>,
    /// The number.
    pub value: f64,
}

impl Metrics {
    /// Fetches `url` with `curl`, a command line of curl; they must be served as what they are.
    ///
    /// # Panics
    /// If they are not.
    #[must_use]
    #[track_caller]
    pub fn fetch(curl: &mut Command, url: &str) -> Self {
        let answer = must(curl.args(["-gsSf", "-w", "%{content_type}", url]));
        let (text, kind) = answer.split_at(answer.rfind('\n').map_or(0, |end| end + 1));
        assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
        Self::parse(text).unwrap_or_else(|why| panic!("{why} in\n{text}"))
    }

    /// Reads `text`.
    ///
    /// # Errors
    /// One line, if the text is not as OpenMetrics 1.0 has it: each family with its type before its samples,
    /// counters that end in `_total`, no series twice, `# EOF` at the end and nothing behind it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.strip_suffix("# EOF\n").ok_or("it does not end in `# EOF`")?;
        let (mut types, mut seen) = (HashMap::new(), HashSet::new());
        let (mut samples, mut family) = (Vec::new(), String::new());
        for line in lines.lines() {
            let wrong = |what: &str| format!("{what}: {line:?}");
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (Some(keyword), Some(name), Some(rest)) = (words.next(), words.next(), words.next())
                else {
                    return Err(wrong("half a comment"));
                };
                match keyword {
                    "TYPE" if types.insert(name.to_owned(), rest.to_owned()).is_some() => {
                        return Err(wrong("a second type"));
                    }
                    "HELP" | "TYPE" => name.clone_into(&mut family),
                    "UNIT" if name == family && name.ends_with(rest) => {}
                    _ => return Err(wrong("an unknown comment")),
                }
                continue;
            }
            let sample = sample(line).ok_or_else(|| wrong("no sample"))?;
            let suffix = sample.name.strip_prefix(&family).ok_or_else(|| wrong("not of its family"))?;
            let fits = match types.get(&family).map(String::as_str) {
                Some("counter") => suffix == "_total" && sample.value >= 0.0,
                Some("gauge" | "unknown") => suffix.is_empty(),
                Some("info") => suffix == "_info" && sample.value == 1.0,
                _ => return Err(wrong("without a type")),
            };
            if !fits {
                return Err(wrong("does not fit its type"));
            }
            let mut labels = sample.labels.clone();
            labels.sort();
            if !seen.insert((sample.name.clone(), labels)) {
                return Err(wrong("a series twice"));
            }
            samples.push(sample);
        }
        Ok(Self(samples))
    }

    /// All of them.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.0
    }

    /// All values of `name` whose labels contain `labels`, added up.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.0.iter().filter(|sample| sample.is(name, labels)).map(|sample| sample.value).sum()
    }

    /// The number of the series with just these labels.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |sample: &&Sample| sample.is(name, labels) && sample.labels.len() == labels.len();
        self.0.iter().find(fits).map(|sample| sample.value)
    }
}

impl Sample {
    /// Whether it is of the family `name` and has all of `labels`.
    fn is(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        let has = |(key, value): &(&str, &str)| self.labels.iter().any(|(k, v)| k == key && v == value);
        self.name == name && labels.iter().all(has)
    }
}

/// `name{key="value",...} number`
fn sample(line: &str) -> Option<Sample> {
    let (series, number) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    let legal = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
        let (key, value) = label.split_once('=')?;
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        (legal(key) && !value.contains(['"', '\\'])).then(|| (key.to_owned(), value.to_owned()))
    });
    let labels = labels.collect::<Option<Vec<_>>>()?;
    legal(name).then_some(Sample { name: name.to_owned(), labels, value: number.parse().ok()? })
}
