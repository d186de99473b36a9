//! Page of a comparison, for people, made from a [`Report`] alone.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::contents::{About, Report};
use super::plots::{self, Axis, Bar, Line};
use crate::compare::baseline::{self, Change};
use crate::compare::figures::{Client, Run, Summary};
use crate::compare::table::{confidence, latency, micros, range, rate, ratio, seconds, time, verdict};

const STYLE: &str = include_str!("style.css");

pub(super) fn page(report: &Report, before: Option<&Report>) -> String {
    let page = Page { report, backends: backends(report) };
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "eventbus compare" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "eventbus compare: " (page.backends.join(", ")) }
                p.verdict { (verdict(report.summaries.iter())) "." }
                p.quiet { (report.made) ". " (confidence(report.summaries.iter())) }
                (page.warnings())
                (page.legend())
                (page.overview())
                @if let Some(before) = before { (changes(before, report)) }
                (page.order())
                @for about in &report.workloads { (page.workload(about)) }
                (page.environment())
            }
        }
    };
    markup.into_string()
}

/// Returns the backends in their order. The place in it decides a backend's colour.
fn backends(report: &Report) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for one in &report.summaries {
        if !all.contains(&one.run.backend) {
            all.push(one.run.backend.clone());
        }
    }
    all
}

struct Page<'a> {
    report: &'a Report,
    backends: Vec<String>,
}

/// Renders a plot with title and caption.
fn figure(title: &str, plot: Option<String>, caption: &str) -> Markup {
    html! {
        @if let Some(plot) = plot {
            figure { h3 { (title) } (PreEscaped(plot)) figcaption { (caption) } }
        }
    }
}

impl Page<'_> {
    fn place(&self, run: &Run) -> usize {
        self.backends.iter().position(|backend| *backend == run.backend).unwrap_or_default()
    }

    fn of<'a>(&'a self, workload: &'a str) -> impl Iterator<Item = &'a Summary> + Clone {
        self.report.summaries.iter().filter(move |one| one.run.workload == workload)
    }

    fn find<'a>(&'a self, workload: &'a str, backend: &str, client: Client) -> Option<&'a Summary> {
        self.of(workload).find(|one| one.run.backend == backend && one.run.client == client)
    }

    fn warnings(&self) -> Markup {
        let broken: Vec<&Run> = self.report.summaries.iter().map(|one| &one.run).filter(|run| !run.is_well()).collect();
        html! {
            @if self.report.environment.build != "release" {
                p.bad { "This program is a " (self.report.environment.build) " build: its figures say nothing of speed." }
            }
            @for failure in &self.report.failures { p.bad { (failure) } }
            @for run in broken {
                p.bad {
                    (run.workload) " on " (run.client.on(&run.backend)) ": " (run.order_violations) " out of order, "
                    (run.duplicates) " twice, " (run.losses) " lost, " (run.failed_publishes) " not published, "
                    (run.foreign) " not ours."
                }
                @for violation in &run.violations { p.bad { (violation) } }
            }
        }
    }

    fn legend(&self) -> Markup {
        let bare = self.report.summaries.iter().any(|one| one.run.client == Client::Bare);
        html! {
            ul.legend {
                @for (place, backend) in self.backends.iter().enumerate() {
                    li { i style=(format!("background:{}", plots::colour(place))) {} (backend) }
                }
                @if bare { li.quiet { "lighter, dashed: the backend's own client without the bus" } }
            }
        }
    }

    fn overview(&self) -> Markup {
        html! {
            h2 { "Throughput" }
            p.quiet {
                "Envelopes handled in a second, medians. × is against the first backend, “of bare” is the part of what the "
                "backend's own client reaches, without a group and without a promise of order."
            }
            div.scroll { table {
                tr { th { "workload" } @for backend in &self.backends { th { (backend) } th { "×" } th { "of bare" } } }
                @for about in &self.report.workloads {
                    @if self.of(&about.name).next().is_some() {
                        tr {
                            td { (about.name) }
                            @for backend in &self.backends { (self.cell(&about.name, backend)) }
                        }
                    }
                }
            } }
        }
    }

    fn cell(&self, workload: &str, backend: &str) -> Markup {
        html! {
            @match self.find(workload, backend, Client::Bus) {
                Some(one) => {
                    td { (rate(one.run.handled_per_second)) @if one.run.round > 1 { small { (range(one.handled_range)) } } }
                    td { (ratio(one.of_first_backend)) }
                    td { @if let Some(part) = one.of_bare_client { (format!("{:.0} %", part * 100.0)) } }
                }
                None => { td { "–" } td {} td {} }
            }
        }
    }

    /// Renders what it costs to handle each key in order.
    fn order(&self) -> Markup {
        let ideal: Vec<&Summary> = self.report.summaries.iter().filter(|one| one.run.ratio.is_some()).collect();
        let bar = |one: &&Summary| Bar {
            label: self.label(&one.run, &one.run.workload),
            backend: self.place(&one.run),
            hollow: false,
            value: one.run.ratio.unwrap_or_default(),
            rounds: self.rounds(&one.run, |run| run.ratio),
        };
        let told = |value: f64| format!("{value:.2}");
        let bars: Vec<Bar> = ideal.iter().map(bar).collect();
        let of_ideal = plots::bars(
            "time as a multiple of the least possible",
            &bars,
            Axis { what: "× the other time", told: &told },
        );
        let keyed = self
            .report
            .summaries
            .iter()
            .filter(|one| one.run.client == Client::Bus && is_about_keys(&one.run.workload));
        let keyed: Vec<Bar> = keyed
            .map(|one| Bar {
                label: self.label(&one.run, &one.run.workload),
                backend: self.place(&one.run),
                hollow: false,
                value: one.run.handled_per_second,
                rounds: self.rounds(&one.run, |run| Some(run.handled_per_second)),
            })
            .collect();
        let told = |value: f64| rate(value);
        let by_keys = plots::bars("handled in a second", &keyed, Axis { what: "envelopes/s", told: &told });
        html! {
            @if !ideal.is_empty() || !keyed.is_empty() {
                h2 { "What order costs" }
                p.quiet {
                    "A key's envelopes are handled one after the other, so no bus can be faster than the longest key, nor than "
                    "all handlers' time shared out. What comes above 1 is the cost of the bus; for the stuck key, what one slow "
                    "key costs all others."
                }
                div.plots {
                    (figure("Time against the least possible", of_ideal, "1 would be no cost at all"))
                    (figure("Throughput by number of keys", by_keys, "few keys leave little to do at once, with any bus"))
                }
            }
        }
    }

    fn label(&self, run: &Run, what: &str) -> String {
        // The user's changes are told above: the label leaves them out.
        let what = what.split(' ').next().unwrap_or_default();
        if self.backends.len() > 1 { format!("{what}, {}", run.backend) } else { what.to_owned() }
    }

    fn rounds(&self, of: &Run, pick: impl Fn(&Run) -> Option<f64>) -> Vec<f64> {
        let same = |run: &&Run| run.workload == of.workload && run.backend == of.backend && run.client == of.client;
        self.report.runs.iter().filter(same).filter_map(pick).collect()
    }

    fn workload(&self, about: &About) -> Markup {
        let all: Vec<&Summary> = self.of(&about.name).collect();
        let prefilled = all.iter().all(|one| one.run.publish_to_handle_us.is_none());
        html! {
            @if !all.is_empty() {
                h2 id=(about.name) { (about.name) }
                p.quiet { (about.about) @if about.name.contains(' ') { "; changed as its name says" } }
                (self.legend())
                div.scroll { (figures(&all)) }
                div.plots {
                    (figure("Throughput", self.throughput(&all), "the median, and a dot for each round"))
                    @if !prefilled {
                        (figure("Publish to handle", self.percentiles(&all, |detail| &detail.to_handle),
                            "percentiles of all messages; logarithmic"))
                    }
                    (figure("Publish to confirm", self.percentiles(&all, |detail| &detail.to_confirm),
                        "percentiles of all messages; logarithmic"))
                    @if !prefilled {
                        (figure("Latency over time", self.over_time(&all),
                            "publish to handle, 99 % and (thin) 50 %, by when it was handled; logarithmic"))
                    }
                    (figure("Partitions", self.partitions(&all), "part of the messages that each partition had, by the bus"))
                }
            }
        }
    }

    fn throughput(&self, all: &[&Summary]) -> Option<String> {
        let bar = |one: &&Summary| Bar {
            label: one.run.client.on(&one.run.backend),
            backend: self.place(&one.run),
            hollow: one.run.client == Client::Bare,
            value: one.run.handled_per_second,
            rounds: self.rounds(&one.run, |run| Some(run.handled_per_second)),
        };
        let bars: Vec<Bar> = all.iter().map(bar).collect();
        let told = |value: f64| rate(value);
        plots::bars("handled in a second", &bars, Axis { what: "handled/s", told: &told })
    }

    fn percentiles(
        &self,
        all: &[&Summary],
        pick: impl Fn(&crate::compare::figures::Detail) -> &Vec<(f64, f64)>,
    ) -> Option<String> {
        let line = |one: &&Summary| {
            let curve = pick(one.run.detail.as_ref()?);
            // The highest latency stands where its percentile would be: beyond the last one below 100 %.
            let last = (one.run.messages.max(10) as f64).log10();
            let nines = |percentile: f64| if percentile >= 100.0 { last } else { -(1.0 - percentile / 100.0).log10() };
            let points = curve.iter().map(|(percentile, micros)| (nines(*percentile), *micros)).collect();
            Some(Line { backend: self.place(&one.run), dashed: one.run.client == Client::Bare, faint: false, points })
        };
        let lines: Vec<Line> = all.iter().filter_map(line).collect();
        let nines = |value: f64| match value {
            whole if (whole - whole.round()).abs() > 0.01 => String::new(),
            zero if zero < 0.5 => "0 %".to_owned(),
            one if one < 2.5 => format!("{:.0} %", 100.0 - 100.0 / 10_f64.powf(one)),
            more => format!("{:.*} %", (more - 2.0).round() as usize, 100.0 - 100.0 / 10_f64.powf(more)),
        };
        plots::lines(
            "percentiles of latency",
            &lines,
            Axis { what: "of the messages", told: &nines },
            Axis { what: "", told: &micros },
        )
    }

    fn over_time(&self, all: &[&Summary]) -> Option<String> {
        let of = |one: &&Summary, faint: bool| {
            let moments = &one.run.detail.as_ref()?.over_time;
            let points = moments.iter().map(|at| (at.seconds, if faint { at.p50 } else { at.p99 })).collect();
            Some(Line { backend: self.place(&one.run), dashed: one.run.client == Client::Bare, faint, points })
        };
        let lines: Vec<Line> = all.iter().flat_map(|one| [of(one, true), of(one, false)]).flatten().collect();
        plots::lines(
            "latency over time",
            &lines,
            Axis { what: "since the first publish", told: &seconds },
            Axis { what: "", told: &micros },
        )
    }

    fn partitions(&self, all: &[&Summary]) -> Option<String> {
        let line = |one: &&&Summary| {
            let shares = &one.run.detail.as_ref()?.partitions;
            let sum: usize = shares.iter().map(|share| share.messages).sum();
            let points = shares.iter().enumerate();
            let points = points.map(|(place, share)| (place as f64, share.messages as f64 / sum.max(1) as f64 * 100.0));
            Some(Line { backend: self.place(&one.run), dashed: false, faint: false, points: points.collect() })
        };
        let lines: Vec<Line> =
            all.iter().filter(|one| one.run.client == Client::Bus).filter_map(|one| line(&one)).collect();
        // One partition has all messages: nothing to show.
        if lines.iter().all(|line| line.points.len() < 2) {
            return None;
        }
        let percent = |value: f64| format!("{value:.1} %");
        plots::shares(
            "part of the messages",
            &lines,
            Axis { what: "partition, topic after topic", told: &plots::whole },
            Axis { what: "", told: &percent },
        )
    }

    fn environment(&self) -> Markup {
        let of = &self.report.environment;
        let versions: Vec<String> = of.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let memory = of.memory_bytes.map(|bytes| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)));
        html! {
            h2 { "How it was measured" }
            pre { (self.report.command) }
            dl {
                dt { "system" } dd { (of.system) }
                dt { "processor" } dd { (of.processor) ", " (of.threads) " threads" }
                @if let Some(memory) = memory { dt { "memory" } dd { (memory) } }
                dt { "versions" } dd { (versions.join(", ")) " (" (of.build) " build)" }
                @for (name, told) in &of.backends { dt { (name) } dd { (told) } }
            }
            p.quiet {
                "The clock runs from the first publish to the last handled. Rounds are interleaved over the backends and their "
                "clients. Messages on a timetable count from when they were due, so that a publisher that was held up hides "
                "nothing. While the clock runs every delivery is checked; which rules were applied stands in each table. "
                "report.json beside this page holds all of it."
            }
        }
    }
}

/// Whether the workload's family differs in its keys alone.
fn is_about_keys(workload: &str) -> bool {
    ["parallel-", "throughput-"].iter().any(|family| workload.starts_with(family))
}

fn figures(all: &[&Summary]) -> Markup {
    html! {
        table {
            tr {
                th {} th { "published/s" } th { "handled/s" } th { "to confirm" br; "p50 / p99 / max" }
                th { "to handle" br; "p50 / p99 / max" } th { "order" } th { "twice" } th { "lost" } th { "CPU each" }
                th { "memory" } th { "tasks" } th { "rounds" } th { "check" } th { "time" }
            }
            @for one in all {
                @let run = &one.run;
                tr {
                    td { (run.client.on(&run.backend)) }
                    td { (rate(run.published_per_second)) @if run.round > 1 { small { (range(one.published_range)) } } }
                    td { (rate(run.handled_per_second)) @if run.round > 1 { small { (range(one.handled_range)) } } }
                    td { (latency(run.publish_to_confirm_us)) }
                    td { (latency(run.publish_to_handle_us)) }
                    @for count in [run.order_violations, run.duplicates, run.losses] {
                        td.bad[count > 0] { (count) }
                    }
                    td { (micros(run.cpu_us_per_message)) }
                    td { @if let Some(bytes) = run.peak_memory_bytes { (bytes >> 20) " MiB" } }
                    td { (run.peak_tasks) }
                    td { (run.round) }
                    td { (run.check) }
                    td.words { (time(run)) }
                }
            }
        }
    }
}

fn changes(before: &Report, now: &Report) -> Markup {
    let all: Vec<Change> = baseline::changes(&before.summaries, &now.summaries);
    let p99 = |of: Option<f64>| of.map_or_else(|| "–".to_owned(), micros);
    html! {
        h2 { "Against " (before.made) }
        p.quiet { "Two figures differ only where the ranges of their rounds have nothing in common." }
        div.scroll { table {
            tr {
                th { "workload" } th { "on" } th { "before" } th { "handled/s" } th { "×" } th { "p99 before" } th { "p99" } th {}
            }
            @for one in &all {
                tr {
                    td { (one.workload) } td { (one.client.on(&one.backend)) }
                    td { (rate(one.handled_per_second_before)) } td { (rate(one.handled_per_second)) }
                    td { (format!("{:.2}", one.ratio)) } td { (p99(one.p99_before_us)) } td { (p99(one.p99_us)) }
                    td.words { (one.word()) }
                }
            }
        } }
        @if all.is_empty() { p { "Nothing that both reports have." } }
        pre { (before.command) }
    }
}
