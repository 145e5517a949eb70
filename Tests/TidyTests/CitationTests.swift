import Testing

/// A clause that the sources cite is a rule we say we keep; some test must say so too.
@Suite("Citations")
struct CitationTests {
    /// Clauses which the sources cite and no test does yet: the list may only get shorter.
    /// Most are encoding rules: the codec's tests name the rules they break by its errors, not by clause.
    private static let untested: Set<String> = [
        "MQTT311-2.2.2-2",
        "MQTT311-2.3.1-1",
        "MQTT311-3.1.0-1",
        "MQTT311-3.1.2-1",
        "MQTT311-3.1.2-13",
        "MQTT311-3.1.2-14",
        "MQTT311-3.1.2-15",
        "MQTT311-3.1.2-22",
        "MQTT311-3.1.2-3",
        "MQTT311-3.1.3-4",
        "MQTT311-3.10.3-2",
        "MQTT311-3.3.1-2",
        "MQTT311-3.3.1-4",
        "MQTT311-3.3.2-2",
        "MQTT311-3.8.3-3",
        "MQTT311-3.8.3-4",
        "MQTT311-3.8.4-5",
        "MQTT311-4.7.1-2",
        "MQTT311-4.7.1-3",
        "MQTT311-4.7.3-1",
        "MQTT311-4.8.0-1",
        "MQTT5-2.1.3-1",
        "MQTT5-2.2.1-2",
        "MQTT5-2.2.1-3",
        "MQTT5-3.1.0-1",
        "MQTT5-3.1.2-1",
        "MQTT5-3.1.2-11",
        "MQTT5-3.1.2-12",
        "MQTT5-3.1.2-13",
        "MQTT5-3.1.2-3",
        "MQTT5-3.1.3-4",
        "MQTT5-3.10.3-2",
        "MQTT5-3.14.2-1",
        "MQTT5-3.15.2-1",
        "MQTT5-3.2.2-1",
        "MQTT5-3.2.2-15",
        "MQTT5-3.2.2-17",
        "MQTT5-3.3.1-2",
        "MQTT5-3.3.1-4",
        "MQTT5-3.3.2-14",
        "MQTT5-3.3.2-2",
        "MQTT5-3.3.4-6",
        "MQTT5-3.4.2-1",
        "MQTT5-3.8.3-2",
        "MQTT5-3.8.3-4",
        "MQTT5-3.8.3-5",
        "MQTT5-4.3.2-3",
        "MQTT5-4.3.3-7",
    ]

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
