//! A chart with two logarithmic axes, as SVG: a line for each series, and what it would be if it were
//! linear.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

const COLOURS: [&str; 8] =
    ["#1b6ca8", "#7a7a7a", "#c0392b", "#e67e22", "#27ae60", "#8e44ad", "#16a085", "#b8860b"];

/// The decades that a number lies between.
fn decades(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let least = values.clone().fold(f64::MAX, f64::min).log10().floor();
    (least, values.fold(f64::MIN, f64::max).log10().ceil().max(least + 1.0))
}

/// Where things stand on the paper.
struct Axes {
    x: (f64, f64),
    y: (f64, f64),
}

const END: f64 = WIDTH - RIGHT;
const BASE: f64 = HEIGHT - BOTTOM;

impl Axes {
    fn x(&self, value: f64) -> f64 {
        LEFT + (value.log10() - self.x.0) / (self.x.1 - self.x.0) * (END - LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        BASE - (value.log10() - self.y.0) / (self.y.1 - self.y.0) * (BASE - TOP)
    }

    /// A grid with the decades.
    fn grid(&self, svg: &mut String) {
        for decade in whole(self.x) {
            let (at, name, below) = (self.x(10f64.powf(decade)), label(decade), BASE + 20.0);
            let _ = writeln!(
                svg,
                "<path d=\"M{at:.1} {TOP}V{BASE}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{name}</text>"
            );
        }
        for decade in whole(self.y) {
            let (at, name) = (self.y(10f64.powf(decade)), label(decade));
            let (before, below) = (LEFT - 8.0, at + 4.0);
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {at:.1}H{END}\" stroke=\"#ddd\"/><text x=\"{before}\" y=\"{below:.1}\" text-anchor=\"end\">{name}</text>"
            );
        }
    }

    /// A line with its points; dashed, what it would be from its last point back, were it linear.
    fn line(&self, svg: &mut String, points: &[(f64, f64)], colour: &str) {
        if let (Some(first), Some(last)) = (points.first(), points.last()) {
            let linear = self.y(last.1 * first.0 / last.0).min(BASE);
            let _ = writeln!(
                svg,
                "<path d=\"M{:.1} {linear:.1}L{:.1} {:.1}\" stroke=\"{colour}\" stroke-opacity=\"0.3\" stroke-dasharray=\"4 4\"/>",
                self.x(first.0),
                self.x(last.0),
                self.y(last.1)
            );
        }
        let place =
            |(items, time): &(f64, f64)| format!("{:.1} {:.1}", self.x(*items), self.y(*time));
        let path: Vec<String> = points.iter().map(place).collect();
        let _ = writeln!(
            svg,
            "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join("L")
        );
        for (items, time) in points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"><title>{items}: {time:.2} ms</title></circle>",
                self.x(*items),
                self.y(*time)
            );
        }
    }
}

/// Draws named lines of items and milliseconds.
pub(crate) fn draw(title: &str, lines: &[(&str, Vec<(f64, f64)>)]) -> String {
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let axes = Axes { x: decades(points().map(|(x, _)| x)), y: decades(points().map(|(_, y)| y)) };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{title}</text>\n"
    );
    axes.grid(&mut svg);
    let mut ends: Vec<(f64, &str, &str, f64)> = Vec::new();
    for ((name, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        axes.line(&mut svg, points, colour);
        ends.extend(points.last().map(|(_, time)| (axes.y(*time), *name, *colour, *time)));
    }
    // The names stand at the ends of their lines, a line of text apart.
    ends.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (mut free, beside) = (TOP, END + 8.0);
    for (at, name, colour, time) in ends {
        free = free.max(at + 4.0);
        let digits = if time < 10.0 { 2 } else { 0 };
        let _ = writeln!(
            svg,
            "<text x=\"{beside}\" y=\"{free:.1}\" fill=\"{colour}\">{name} {time:.digits$}</text>"
        );
        free += 16.0;
    }
    svg.push_str("</svg>\n");
    svg
}

fn whole((low, high): (f64, f64)) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(low), |decade| Some(decade + 1.0))
        .take_while(move |decade| *decade <= high)
}

fn label(decade: f64) -> String {
    let value = 10f64.powf(decade);
    match value {
        value if value >= 1e6 => format!("{} M", value / 1e6),
        value if value >= 1e3 => format!("{} k", value / 1e3),
        value => format!("{value}"),
    }
}
