import Foundation

/// A plot of lines over a common horizontal axis, in panels one above the other, as SVG.
package struct LinePlot: Sendable {
    package struct Line: Sendable {
        package var name: String
        /// `#rrggbb`.
        package var color: String
        package var isDashed = false
        /// Values stay until the next one, instead of being joined.
        package var isStepped = false
        /// Ordered by x; values that are not finite are left out.
        package var points: [(x: Double, y: Double)]

        package init(
            name: String, color: String, isDashed: Bool = false, isStepped: Bool = false,
            points: [(x: Double, y: Double)]
        ) {
            self.name = name
            self.color = color
            self.isDashed = isDashed
            self.isStepped = isStepped
            self.points = points
        }
    }

    package struct Panel: Sendable {
        package var title: String
        package var lines: [Line]

        package init(title: String, lines: [Line]) {
            self.title = title
            self.lines = lines
        }
    }

    /// A part of the horizontal axis with a name.
    package struct Band: Sendable {
        package var name: String
        package var from: Double
        package var to: Double

        package init(name: String, from: Double, to: Double) {
            self.name = name
            self.from = from
            self.to = to
        }
    }

    /// Colours that people of all kinds of sight can tell apart (Okabe and Ito).
    package enum Palette {
        package static let blue = "#0072b2"
        package static let vermilion = "#d55e00"
        package static let green = "#009e73"
        package static let grey = "#595959"
        package static let purple = "#aa4499"
    }

    package var title: String
    package var axis: String
    package var panels: [Panel]
    package var bands: [Band] = []
    package var end: Double

    package init(
        title: String, axis: String, panels: [Panel], bands: [Band] = [], end: Double
    ) {
        self.title = title
        self.axis = axis
        self.panels = panels
        self.bands = bands
        self.end = end
    }

    private static let width = 900.0
    private static let panelHeight = 230.0
    private static let left = 60.0
    private static let right = 20.0
    private static let top = 70.0
    /// Between panels: title and legend of the lower one.
    private static let gap = 60.0
    private static let bottom = 50.0

    private var height: Double {
        let count = Double(panels.count)
        return Self.top + count * Self.panelHeight + max(0, count - 1) * Self.gap + Self.bottom
    }

    /// A file of its own.
    package var svg: String {
        #"<?xml version="1.0" encoding="UTF-8"?>"# + "\n" + element
    }

    /// What a page holds.
    var element: String {
        var parts = [
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(text(Self.width)) "
                + "\(text(height))\" font-family=\"sans-serif\" font-size=\"13\">",
            #"<rect width="100%" height="100%" fill="white"/>"#,
            label(title, x: Self.width / 2, y: 22, anchor: "middle", size: 16),
        ]
        for (index, panel) in panels.enumerated() {
            let top = Self.top + Double(index) * (Self.panelHeight + Self.gap)
            parts += draw(panel, top: top, showsBandNames: index == 0)
        }
        parts.append(label(axis, x: Self.width / 2, y: height - 12, anchor: "middle"))
        parts.append("</svg>\n")
        return parts.joined(separator: "\n")
    }

    private func draw(_ panel: Panel, top: Double, showsBandNames: Bool) -> [String] {
        let bottom = top + Self.panelHeight
        let largest = panel.lines.flatMap(\.points).map(\.y).filter(\.isFinite).max() ?? 1
        let step = Self.step(for: largest)
        let highest = max(step, (largest / step).rounded(.up) * step)
        func y(_ value: Double) -> Double { bottom - value / highest * Self.panelHeight }
        var parts: [String] = []
        for (index, band) in bands.enumerated() {
            let width = x(band.to) - x(band.from)
            parts.append(
                "<rect x=\"\(text(x(band.from)))\" y=\"\(text(top))\" width=\"\(text(width))\" "
                    + "height=\"\(text(Self.panelHeight))\" "
                    + "fill=\"\(index.isMultiple(of: 2) ? "#f4f4f4" : "#e6eef5")\"/>")
            guard showsBandNames else { continue }
            parts.append(
                label(band.name, x: x(band.from) + width / 2, y: top + 16, anchor: "middle"))
        }
        for value in stride(from: 0, through: highest + step / 2, by: step) {
            parts.append(
                line(from: (Self.left, y(value)), to: (Self.width - Self.right, y(value))))
            parts.append(
                label(Self.figure(value), x: Self.left - 6, y: y(value) + 4, anchor: "end"))
        }
        for value in stride(from: 0, through: end, by: Self.step(for: end)) {
            parts.append(line(from: (x(value), bottom), to: (x(value), bottom + 4)))
            parts.append(
                label(Self.figure(value), x: x(value), y: bottom + 18, anchor: "middle"))
        }
        parts.append(label(panel.title, x: Self.left, y: top - 10, anchor: "start"))
        parts += legend(panel, y: top - 14)
        for line in panel.lines { parts += draw(line, y: y) }
        return parts
    }

    private func legend(_ panel: Panel, y: Double) -> [String] {
        let wide = 150.0
        let start = Self.width - Self.right - wide * Double(panel.lines.count)
        return panel.lines.enumerated().flatMap { index, line in
            let x = start + Double(index) * wide
            return [
                "<path d=\"M\(text(x)) \(text(y))h24\" fill=\"none\" \(stroke(line))/>",
                label(line.name, x: x + 29, y: y + 4, anchor: "start"),
            ]
        }
    }

    private func draw(_ line: Line, y: (Double) -> Double) -> [String] {
        var path = ""
        for point in line.points where point.x.isFinite && point.y.isFinite {
            let (x, y) = (text(x(point.x)), text(y(point.y)))
            if path.isEmpty {
                path = "M\(x) \(y)"
            } else if line.isStepped {
                path += "H\(x)V\(y)"
            } else {
                path += "L\(x) \(y)"
            }
        }
        return path.isEmpty ? [] : ["<path d=\"\(path)\" fill=\"none\" \(stroke(line))/>"]
    }

    private func stroke(_ line: Line) -> String {
        "stroke=\"\(line.color)\" stroke-width=\"2\""
            + (line.isDashed ? " stroke-dasharray=\"6 4\"" : "")
    }

    private func line(from: (Double, Double), to: (Double, Double)) -> String {
        "<path d=\"M\(text(from.0)) \(text(from.1))L\(text(to.0)) \(text(to.1))\" "
            + "stroke=\"#bbbbbb\"/>"
    }

    private func label(
        _ words: String, x: Double, y: Double, anchor: String, size: Int = 13
    ) -> String {
        "<text x=\"\(text(x))\" y=\"\(text(y))\" text-anchor=\"\(anchor)\" "
            + "font-size=\"\(size)\" fill=\"#222222\">\(words.markupEscaped)</text>"
    }

    private func x(_ value: Double) -> Double {
        Self.left + value / max(end, 1e-9) * (Self.width - Self.left - Self.right)
    }

    /// Distance of marks: 1, 2 or 5 times a power of ten, for four to ten marks.
    package static func step(for largest: Double) -> Double {
        guard largest > 0, largest.isFinite else { return 1 }
        let power = pow(10, (log10(largest / 4)).rounded(.down))
        return [5, 2, 1].map { $0 * power }.first { $0 * 4 <= largest } ?? power
    }

    private static func figure(_ value: Double) -> String {
        String(format: "%g", (value * 1e6).rounded() / 1e6)
    }

    private func text(_ value: Double) -> String { String(format: "%.1f", value) }
}
