//! Versions of scvi-tools, as far as they decide what a model computes.

use std::{fmt, str::FromStr};

/// A version such as `1.4.2` or `1.2.2.post2`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToolsVersion {
    text: String,
    release: [u32; 3],
}

impl ToolsVersion {
    /// Whether it is older than a release.
    pub fn is_before(&self, release: [u32; 3]) -> bool {
        self.release < release
    }
}

impl FromStr for ToolsVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut release = [0; 3];
        let parts: Vec<&str> = text.split('.').collect();
        for (position, part) in parts.iter().take(release.len()).enumerate() {
            // Suffixes such as `rc1` and `post2` are not part of the release.
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            release[position] = match part[..digits].parse() {
                Ok(number) => number,
                Err(_) if position == 2 => 0,
                Err(_) => return Err(format!("`{text}` is not a version of scvi-tools")),
            };
        }
        if parts.len() < 2 {
            return Err(format!("`{text}` is not a version of scvi-tools"));
        }
        Ok(Self { text: text.to_owned(), release })
    }
}

impl fmt::Display for ToolsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_do_not_change_the_release() {
        for (text, before, not_before) in [
            ("1.2.2.post2", [1, 2, 3], [1, 2, 2]),
            ("1.1.0rc1", [1, 1, 1], [1, 1, 0]),
            ("0.14.6", [0, 15, 0], [0, 8, 0]),
            ("1.4", [1, 4, 1], [1, 4, 0]),
        ] {
            let version: ToolsVersion = text.parse().unwrap();
            assert!(version.is_before(before) && !version.is_before(not_before), "{text}");
            assert_eq!(version.to_string(), text);
        }
        for bad in ["", "1", "one.two", "-1.2", "99999999999.1"] {
            assert!(bad.parse::<ToolsVersion>().is_err(), "{bad}");
        }
    }
}
