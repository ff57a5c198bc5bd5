//! Ranges as monitoring plugins take them for `-w` and `-c`: `10` alerts outside of 0 to 10, `10:` below
//! 10, `~:10` above 10, `10:20` outside, `@10:20` inside (the ends count as inside).

use std::fmt;
use std::str::FromStr;

/// Where a number must be, or must not.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Range {
    low: f64,
    high: f64,
    is_inside_bad: bool,
    text: String,
}

impl Range {
    /// Is this a number to alert about?
    pub(super) fn alerts(&self, value: f64) -> bool {
        (self.low <= value && value <= self.high) == self.is_inside_bad
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no range: write 10, 10:, ~:10, 10:20 or @10:20");
        let number = |text: &str| {
            let number = text.parse().ok().filter(|number: &f64| number.is_finite());
            number.ok_or_else(wrong)
        };
        let (is_inside_bad, ends) =
            text.strip_prefix('@').map_or((false, text), |ends| (true, ends));
        let (low, high) = match ends.split_once(':') {
            None => (0.0, number(ends)?),
            Some((low, high)) => {
                let low = if low == "~" { f64::NEG_INFINITY } else { number(low)? };
                (low, if high.is_empty() { f64::INFINITY } else { number(high)? })
            }
        };
        if low > high {
            return Err(wrong());
        }
        Ok(Self { low, high, is_inside_bad, text: text.to_owned() })
    }
}

/// As it was written.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[test]
fn ranges_are_those_of_the_plugin_guidelines() {
    let cases: [(&str, &[f64], &[f64]); 7] = [
        ("10", &[-1.0, 10.1], &[0.0, 10.0]),
        ("10:", &[9.9, -5.0], &[10.0, 1e18]),
        ("~:10", &[10.1], &[-1e18, 10.0]),
        ("10:20", &[9.0, 21.0], &[10.0, 20.0]),
        ("@10:20", &[10.0, 15.0, 20.0], &[9.0, 21.0]),
        ("0", &[1.0], &[0.0]),
        ("@~:0", &[-1.0, 0.0], &[1.0]),
    ];
    for (text, bad, good) in cases {
        let range: Range = text.parse().unwrap();
        assert_eq!(range.to_string(), text);
        assert!(bad.iter().all(|value| range.alerts(*value)), "{text}");
        assert!(!good.iter().any(|value| range.alerts(*value)), "{text}");
    }
    for text in ["", "x", "20:10", ":10", "1:2:3", "@", "~", "nan", "inf:"] {
        assert!(text.parse::<Range>().is_err(), "{text}");
    }
}
