import Testing

/// A clause that the sources cite is a rule we say we keep; some test must say so too.
@Suite("Citations")
struct CitationTests {
    /// Clauses which the sources cite and no test does yet: the list may only get shorter.
    private static let untested: Set<String> = []

    private static func clauses(under folder: String) throws -> [String: String] {
        let pattern = try Regex(#"MQTT(?:5|311)-\d+\.\d+\.\d+(?:\.\d+)*-\d+"#)
        var found: [String: String] = [:]
        for file in SourceTree.swiftFiles(under: folder) where !file.path.hasPrefix("Tests/TidyTests/") {
            for line in file.lines {
                for match in line.matches(of: pattern) {
                    found[String(line[match.range])] = file.path
                }
            }
        }
        return found
    }

    @Test("Every clause cited in the sources is cited in a test")
    func cited() throws {
        let tested = try Self.clauses(under: "Tests")
        let cited = try Self.clauses(under: "Sources")
        #expect(cited.count > 50)
        for (clause, path) in cited.sorted(by: { $0.key < $1.key }) where tested[clause] == nil {
            #expect(Self.untested.contains(clause), "[\(clause)] is cited in \(path) and in no test")
        }
        for clause in Self.untested.sorted() {
            #expect(
                tested[clause] == nil && cited[clause] != nil, "[\(clause)] need not be on the list any more")
        }
    }
}
