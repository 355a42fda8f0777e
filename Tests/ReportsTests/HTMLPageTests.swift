import Foundation
import Reports
import Testing

@Suite("Reports as pages")
struct HTMLPageTests {
    private static var report: Report {
        var report = Report(name: "a <b> & c", facts: [("fact", "1 < 2")])
        var table = ReportTable("t", "Table & more", columns: ["name", "time_ms"])
        table.add([.text("<script>"), .milliseconds(0.0125)])
        table.add([.text("none"), .number(nil, 1)])
        report.tables = [table]
        report.findings = ["5 > 4"]
        return report
    }

    @Test("a page holds everything, and no text is taken for markup")
    func page() {
        let plot = LinePlot(
            title: "plot <1>", axis: "x",
            panels: [
                .init(
                    title: "y",
                    lines: [
                        .init(
                            name: "line", color: LinePlot.Palette.blue,
                            points: [(0, 0), (1, 2), (2, .infinity), (3, 1)])
                    ])
            ], end: 3)
        let html = HTMLPage(report: Self.report, plots: [plot]).html
        for part in [
            "a &lt;b&gt; &amp; c", "1 &lt; 2", "&lt;script&gt;", "12.50", "–", "5 &gt; 4",
            "plot &lt;1&gt;", "<svg ", "</svg>",
        ] { #expect(html.contains(part), "\(part)") }
        #expect(!html.contains("<script"))
        #expect(!html.contains("http://") || html.contains("www.w3.org/2000/svg"))
        #expect(!html.contains("inf") && !html.contains("nan"))
        let ends = ["<svg", "</svg>"].map { html.components(separatedBy: $0).count }
        #expect(ends[0] == ends[1])
    }

    @Test("an interrupted report says so")
    func interrupted() {
        var report = Self.report
        #expect(!HTMLPage(report: report, plots: []).html.contains("Interrupted"))
        report.isComplete = false
        #expect(HTMLPage(report: report, plots: []).html.contains("Interrupted"))
    }
}
