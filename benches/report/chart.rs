//! The chart: horizontal bars, the same on a light and on a dark page.

use std::fmt::Write;

/// Bars under a heading: names, and their values.
pub type Group = (String, Vec<(String, f64)>);

pub fn draw(title: &str, unit: &str, groups: &[Group]) -> String {
    let bars = || groups.iter().flat_map(|(_, bars)| bars);
    let most = bars().map(|bar| bar.1).fold(0.0, f64::max);
    let height = 44 + groups.len() * 36 + bars().count() * 22;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>{title}</title>\n\
         <style>text {{ fill: #333 }} .own {{ fill: #2a7ab0 }} .peer {{ fill: #999 }}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} .own {{ fill: #5ab0e8 }} .peer {{ fill: #888 }} }}</style>\n\
         <text x=\"10\" y=\"24\" font-size=\"15\">{title}</text>\n"
    );
    let mut y = 44;
    for (heading, bars) in groups {
        let _ = writeln!(svg, "<text x=\"10\" y=\"{}\" font-weight=\"bold\">{heading}</text>", y + 18);
        y += 28;
        for (name, value) in bars {
            let width = value / most * 380.0;
            let class = if name.contains("HIT") { "own" } else { "peer" };
            let _ = writeln!(
                svg,
                "<text x=\"250\" y=\"{0}\" text-anchor=\"end\">{name}</text>\
                 <rect class=\"{class}\" x=\"258\" y=\"{y}\" width=\"{width:.1}\" height=\"16\"/>\
                 <text x=\"{1:.1}\" y=\"{0}\">{value:.2} {unit}</text>",
                y + 13,
                264.0 + width,
            );
            y += 22;
        }
        y += 8;
    }
    svg + "</svg>\n"
}
