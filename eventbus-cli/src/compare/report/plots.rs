//! Plots as SVG within a page. They have no fonts and no sizes of their own, and text and grid take the page's colours,
//! so that they can be read on a light and on a dark ground.

use std::ops::Range;

use plotters::coord::Shift;

use plotters::coord::ranged1d::{SegmentValue, SegmentedCoord, ValueFormatter};
use plotters::coord::types::RangedCoordi32;
use plotters::prelude::*;
use plotters::series::DashedLineSeries;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Units of a plot: about its pixels on a narrow screen, so that its text can be read there.
const WIDTH: u32 = 420;
const HEIGHT: u32 = 250;
/// Placeholders for colours of the page, which replace them.
const TEXT: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(2, 2, 2);
const SIZE: u32 = 15;

/// Colours of the backends, which can be read on both grounds.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x2f, 0x81, 0xc4),
    RGBColor(0xd9, 0x6b, 0x1f),
    RGBColor(0x2f, 0x9e, 0x62),
    RGBColor(0xb3, 0x4f, 0xc0),
    RGBColor(0xc9, 0x3b, 0x4a),
    RGBColor(0x8a, 0x84, 0x21),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Segmented = SegmentedCoord<RangedCoordi32>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

pub(super) fn colour(backend: usize) -> String {
    let RGBColor(red, green, blue) = COLOURS[backend % COLOURS.len()];
    format!("#{red:02X}{green:02X}{blue:02X}")
}

#[derive(Debug)]
pub(super) struct Line {
    pub(super) backend: usize,
    /// Whether it is the bare client's.
    pub(super) dashed: bool,
    /// Whether it is drawn thin, in the background.
    pub(super) faint: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// Bar: the median, with a dot for each round.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) backend: usize,
    /// Whether it is the bare client's.
    pub(super) hollow: bool,
    pub(super) value: f64,
    pub(super) rounds: Vec<f64>,
}

/// Axis of a plot.
#[derive(Clone, Copy)]
pub(super) struct Axis<'a> {
    pub(super) what: &'a str,
    pub(super) told: &'a dyn Fn(f64) -> String,
}

/// Shows a whole number; nothing for values between two.
pub(super) fn whole(value: f64) -> String {
    if (value - value.round()).abs() > 0.01 { String::new() } else { format!("{}", value.round() as i64) }
}

/// Draws an SVG; `None` if it cannot be drawn.
fn draw(height: u32, title: &str, with: impl FnOnce(&Area<'_>) -> Drawn) -> Option<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        with(&area).ok()?;
        area.present().ok()?;
    }
    let text = format!("#{:02X}{:02X}{:02X}", TEXT.0, TEXT.1, TEXT.2);
    let grid = format!("#{:02X}{:02X}{:02X}", GRID.0, GRID.1, GRID.2);
    let head = format!("<svg width=\"{WIDTH}\" height=\"{height}\"");
    let named = format!("<svg role=\"img\" aria-label=\"{title}\"");
    let svg = svg.replacen(&head, &named, 1).replace(" xmlns=\"http://www.w3.org/2000/svg\"", "");
    Some(svg.replace(&text, "currentColor").replace(&grid, "var(--line)"))
}

fn words() -> TextStyle<'static> {
    ("sans-serif", SIZE).into_font().color(&TEXT)
}

/// Returns the lowest and the highest value; `None` if there is none.
fn bounds(values: impl Iterator<Item = f64> + Clone) -> Option<Range<f64>> {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    (low.is_finite() && high.is_finite()).then_some(low..high)
}

/// Draws lines over a logarithmic axis: the range of latencies matters, and it spans decades.
pub(super) fn lines(title: &str, lines: &[Line], x: Axis<'_>, y: Axis<'_>) -> Option<String> {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let across = bounds(points().map(|(x, _)| x))?;
    let up = bounds(points().map(|(_, y)| y.max(0.1)))?;
    let across = across.start..across.end.max(across.start + 1e-9);
    let up = (up.start / 1.3)..(up.end * 1.3);
    draw(HEIGHT, title, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(6)
            .margin_right(26)
            .x_label_area_size(42)
            .y_label_area_size(66)
            .build_cartesian_2d(across, up.log_scale())?;
        mesh(&mut chart, x, y)?;
        for line in lines {
            let colour = COLOURS[line.backend % COLOURS.len()].mix(if line.faint { 0.45 } else { 1.0 });
            let style = colour.stroke_width(if line.faint { 1 } else { 2 });
            let points = line.points.iter().map(|(x, y)| (*x, y.max(0.1)));
            if line.points.len() == 1 {
                // A line needs two points: one alone is drawn as a dot.
                chart.draw_series(points.map(|point| Circle::new(point, 3, colour.filled())))?;
            } else if line.dashed {
                chart.draw_series(DashedLineSeries::new(points, 5, 4, style))?;
            } else {
                chart.draw_series(LineSeries::new(points, style))?;
            }
        }
        Ok(())
    })
}

/// Draws lines over a linear axis from zero on.
pub(super) fn shares(title: &str, lines: &[Line], x: Axis<'_>, y: Axis<'_>) -> Option<String> {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let across = bounds(points().map(|(x, _)| x))?;
    let top = bounds(points().map(|(_, y)| y))?.end.max(1e-9) * 1.15;
    draw(HEIGHT, title, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(6)
            .margin_right(26)
            .x_label_area_size(42)
            .y_label_area_size(66)
            .build_cartesian_2d(across.start - 0.5..across.end + 0.5, 0.0..top)?;
        mesh(&mut chart, x, y)?;
        for line in lines {
            let colour = COLOURS[line.backend % COLOURS.len()];
            chart.draw_series(LineSeries::new(line.points.iter().copied(), colour.mix(0.5).stroke_width(1)))?;
            chart.draw_series(line.points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        Ok(())
    })
}

/// Draws the frame of a plot: few labels, a quiet grid.
fn mesh<X, Y>(chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>, x: Axis<'_>, y: Axis<'_>) -> Drawn
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let told = (|value: &f64| (x.told)(*value), |value: &f64| (y.told)(*value));
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(TRANSPARENT).bold_line_style(GRID).axis_style(GRID).label_style(words());
    mesh.axis_desc_style(words()).x_labels(6).y_labels(6).x_desc(x.what);
    mesh.x_label_formatter(&told.0).y_label_formatter(&told.1);
    mesh.draw().map_err(|error| error.to_string())?;
    Ok(())
}

/// Ratio of the highest value to the lowest beyond which bars over a linear axis hide the lowest.
const DECADES: f64 = 30.0;

/// Draws bars one below the other, from zero on. Where the short ones would not be seen, the axis is logarithmic.
pub(super) fn bars(title: &str, bars: &[Bar], x: Axis<'_>) -> Option<String> {
    let values = || bars.iter().flat_map(|bar| bar.rounds.iter().copied().chain([bar.value]));
    let range = bounds(values())?;
    let top = range.end.max(1e-9);
    let rows = i32::try_from(bars.len()).ok()?;
    draw(58 + 26 * u32::try_from(rows).ok()?, title, |area| {
        let mut chart = ChartBuilder::on(area);
        chart.margin(4).margin_right(26).x_label_area_size(42).y_label_area_size(184);
        let up = (0..rows - 1).into_segmented();
        if range.start > 0.0 && top / range.start > DECADES {
            let low = 10_f64.powf((range.start * 0.9).log10().floor());
            let what = format!("{}, logarithmic", x.what);
            let mut chart = chart.build_cartesian_2d((low..top * (top / low).powf(0.35)).log_scale(), up)?;
            let beyond = |value: f64| value * (top / low).powf(0.02);
            fill(&mut chart, bars, Axis { what: &what, ..x }, low, beyond)
        } else {
            let mut chart = chart.build_cartesian_2d(0.0..top * 1.32, up)?;
            fill(&mut chart, bars, x, 0.0, |value| value + top * 0.02)
        }
    })
}

/// Draws bars that begin at `low`. `beyond` gives the place of the text behind a value.
fn fill<X>(
    chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Segmented>>,
    bars: &[Bar],
    x: Axis<'_>,
    low: f64,
    beyond: impl Fn(f64) -> f64,
) -> Drawn
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let rows = i32::try_from(bars.len())?;
    let name = |row: &SegmentValue<i32>| match row {
        SegmentValue::CenterOf(row) => label(bars, rows, *row),
        _ => String::new(),
    };
    let told = |value: &f64| (x.told)(*value);
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(TRANSPARENT).bold_line_style(GRID).axis_style(GRID).label_style(words()).disable_y_mesh();
    mesh.axis_desc_style(words()).x_labels(4).y_labels(bars.len()).x_desc(x.what);
    mesh.x_label_formatter(&told).y_label_formatter(&name);
    mesh.draw().map_err(|error| error.to_string())?;
    for (bar, row) in bars.iter().zip((0..rows).rev()) {
        let colour = COLOURS[bar.backend % COLOURS.len()];
        let style = colour.mix(if bar.hollow { 0.35 } else { 0.85 }).filled();
        let corners = [(low, SegmentValue::Exact(row)), (bar.value, SegmentValue::Exact(row + 1))];
        let mut rectangle = Rectangle::new(corners, style);
        rectangle.set_margin(4, 4, 0, 0);
        let rounds = bar.rounds.iter().map(|round| (*round, SegmentValue::CenterOf(row)));
        let dots = rounds.map(|round| Circle::new(round, 2, TEXT.filled()));
        let end = beyond(bar.rounds.iter().copied().fold(bar.value, f64::max));
        let beside = words().pos(Pos::new(HPos::Left, VPos::Center));
        let text = Text::new((x.told)(bar.value), (end, SegmentValue::CenterOf(row)), beside);
        chart.draw_series([rectangle]).map_err(|error| error.to_string())?;
        chart.draw_series(dots).map_err(|error| error.to_string())?;
        chart.draw_series([text]).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn label(bars: &[Bar], rows: i32, row: i32) -> String {
    let place = usize::try_from(rows - 1 - row).ok();
    place.and_then(|place| bars.get(place)).map(|bar| bar.label.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_stand_within_a_page() {
        let told = |value: f64| format!("{value}");
        let axis = Axis { what: "x", told: &told };
        let line = Line { backend: 0, dashed: true, faint: false, points: vec![(0.0, 1.0), (1.0, 100.0)] };
        let bar = Bar { label: "a".into(), backend: 1, hollow: false, value: 3.0, rounds: vec![2.0, 4.0] };
        let plots = [lines("t", &[line], axis, axis), bars("t", &[bar], axis)];
        for plot in plots {
            let plot = plot.unwrap();
            assert!(plot.starts_with("<svg role=") && plot.contains("currentColor"), "{plot}");
            assert!(!plot.contains("://") && !plot.contains("#010101"), "{plot}");
        }
        assert!(lines("t", &[], axis, axis).is_none());
        let far = |value: f64| Bar { label: "a".into(), backend: 1, hollow: true, value, rounds: Vec::new() };
        assert!(bars("t", &[far(2.0), far(1e6)], axis).unwrap().contains("logarithmic"));
        let one = Line { backend: 0, dashed: false, faint: false, points: vec![(3.0, 0.0)] };
        assert!(lines("t", &[one], axis, axis).is_some());
    }
}
