import Foundation

/// The statements that a source file cites.
struct Citations {
    /// Statements in the name of a test, or in a comment of a test that begins with them: what is shown there.
    private(set) var shown: Set<String> = []
    /// Statements wherever they are named.
    private(set) var mentioned: Set<String> = []
    /// What stands in such a place and is neither a statement nor a section.
    private(set) var unreadable: [String] = []

    init() {}

    /// Reads a Swift source.
    init(source: String) {
        mentioned = Self.statements(in: source)
        for name in Self.testNames(in: source) { addCitations(in: name) }
        for line in source.split(separator: "\n") {
            if let comment = Self.citingComment(in: line) { addCitations(in: comment) }
        }
    }

    mutating func merge(_ other: Citations) {
        shown.formUnion(other.shown)
        mentioned.formUnion(other.mentioned)
        unreadable += other.unreadable
    }

    /// Every Swift file under `folder` of the package, less some folders in it.
    static func under(_ folder: String, except left: [String] = []) throws -> Citations {
        let root = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let base = root.appendingPathComponent(folder)
        var all = Citations()
        guard let files = FileManager.default.enumerator(at: base, includingPropertiesForKeys: nil) else {
            return all
        }
        while let file = files.nextObject() as? URL {
            guard file.pathExtension == "swift" else { continue }
            if left.contains(where: { file.path.contains("/\($0)/") }) { continue }
            all.merge(Citations(source: try String(contentsOf: file, encoding: .utf8)))
        }
        return all
    }

    /// The brackets of a test's name or of a comment; a bracket may hold several, between commas. One with
    /// a ! before it tells of a departure and shows nothing.
    private mutating func addCitations(in text: String) {
        for bracket in text.matches(of: #/(!?)\[(MQTT[^\]]*)\]/#) where bracket.1.isEmpty {
            for item in bracket.2.split(separator: ",") {
                let id = item.trimmingCharacters(in: .whitespaces)
                if Self.statements(in: id) == [id] {
                    shown.insert(id)
                } else if id.wholeMatch(of: #/MQTT(5|311)-\d+(\.\d+)*/#) == nil {
                    unreadable.append("[\(bracket.2)]")
                }
            }
        }
    }

    /// `MQTT5-4.3.2-4` has a number behind its section; `MQTT5-4.3.2` is only a section.
    private static func statements(in text: String) -> Set<String> {
        Set(text.matches(of: #/MQTT(?:5|311)-\d+(?:\.\d+)+-\d+/#).map { String($0.0) })
    }

    /// The string literals with which `@Test(` begins, on the same line or the next.
    private static func testNames(in source: String) -> [String] {
        source.matches(of: #/@Test\(\s*"((?:[^"\\\n]|\\.)*)"/#).map { String($0.1) }
    }

    /// A comment of two slashes that begins with a bracket, as far as its brackets go; a documentation comment
    /// is none, for it often tells what is not tested.
    private static func citingComment(in line: Substring) -> String? {
        line.firstMatch(of: #/(?:^|[^\/])\/\/ ((?:!?\[MQTT[^\]]*\][ ,]*)+)/#).map { String($0.1) }
    }
}
