//! Joins the pages of several daemons into one: each metric's HELP and TYPE once, then the samples of all.

use std::collections::HashMap;

/// What a name is allowed to begin with: nothing else is passed on.
const OURS: &str = "pollux_";

struct Family {
    heading: String,
    samples: String,
}

/// The page that grows.
#[derive(Default)]
pub(super) struct Joined {
    /// In the order in which they were first seen.
    families: Vec<Family>,
    places: HashMap<String, usize>,
}

impl Joined {
    /// Adds a page. A line that is not of the format is left out.
    pub(super) fn add(&mut self, page: &str) {
        for line in page.lines() {
            if let Some(heading) = line.strip_prefix("# ") {
                let mut words = heading.splitn(3, ' ');
                let (keyword, name) = (words.next(), words.next().unwrap_or_default());
                if name.starts_with(OURS) && matches!(keyword, Some("HELP" | "TYPE")) {
                    let family = self.family(name);
                    // The first who names it says what it is.
                    let begin = format!("# {} ", keyword.unwrap_or_default());
                    if !family.heading.lines().any(|line| line.starts_with(&begin)) {
                        family.heading += &format!("{line}\n");
                    }
                }
            } else if line.starts_with(OURS) {
                let name = line.split(['{', ' ']).next().unwrap_or_default();
                self.family(name).samples += &format!("{line}\n");
            }
        }
    }

    fn family(&mut self, name: &str) -> &mut Family {
        let place = *self.places.entry(name.to_owned()).or_insert_with(|| {
            self.families.push(Family { heading: String::new(), samples: String::new() });
            self.families.len() - 1
        });
        &mut self.families[place]
    }

    /// All of it.
    pub(super) fn text(&self) -> String {
        self.families.iter().map(|family| family.heading.clone() + &family.samples).collect()
    }
}

#[test]
fn each_metric_is_announced_once() {
    let mut joined = Joined::default();
    let page = |resource: &str| {
        format!(
            "# HELP pollux_a What a is.\n# TYPE pollux_a gauge\npollux_a{{resource=\"{resource}\"}} 1\n\
             # HELP pollux_b_total What b is.\n# TYPE pollux_b_total counter\n\
             pollux_b_total{{resource=\"{resource}\"}} 2\n"
        )
    };
    joined.add(&page("r0"));
    joined.add("pollux_a{resource=\"odd\"} 5\nsomebody_elses 1\n# TYPE else gauge\n\n\0\n");
    joined.add(&page("r1"));
    assert_eq!(
        joined.text(),
        "# HELP pollux_a What a is.\n# TYPE pollux_a gauge\npollux_a{resource=\"r0\"} 1\n\
         pollux_a{resource=\"odd\"} 5\npollux_a{resource=\"r1\"} 1\n\
         # HELP pollux_b_total What b is.\n# TYPE pollux_b_total counter\n\
         pollux_b_total{resource=\"r0\"} 2\npollux_b_total{resource=\"r1\"} 2\n"
    );
}
