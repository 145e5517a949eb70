import Testing

/// Whether every statement that binds a server is shown by a test, or listed with the reason why it is not.
///
/// A test shows a statement by citing it in its name, `@Test("[MQTT5-4.3.2-4] PUBACK …")`, or in a comment at
/// the line that shows it, `// [MQTT5-4.3.2-4, MQTT311-4.3.2-2]`.
@Suite("Traceability")
struct TraceabilityTests {
    private static let known = Set(Specification.all.flatMap(\.statements).map(\.id))

    /// The uplink is a client: what its tests show of a rule that binds both sides, they show of the other side.
    private static func citationsOfTheServer() throws -> Citations {
        try Citations.under("Tests", except: ["TraceabilityTests", "UplinkTests"])
    }

    @Test("Appendix B is here as a whole")
    func appendices() {
        #expect(Specification.mqtt311.statements.count == 141)
        #expect(Specification.mqtt5.statements.count == 251)
        #expect(Self.known.count == 141 + 251, "no number is there twice")
    }

    @Test("Every statement cited is one")
    func known() throws {
        var cited = try Citations.under("Tests", except: ["TraceabilityTests"])
        #expect(!cited.shown.isEmpty)
        #expect(cited.unreadable == [])
        cited.merge(try Citations.under("Sources"))
        #expect(cited.mentioned.subtracting(Self.known).sorted() == [])
    }

    @Test(
        "Every statement that binds a server is shown by a test, or listed with a reason", arguments: [0, 1])
    func covered(_ version: Int) throws {
        let specification = Specification.all[version]
        let shown = try Self.citationsOfTheServer().shown
        let impossible = Set(Gaps.cannotBe.keys)
        let missing = Gaps.notYet
        var counts = Counts()
        for statement in specification.statements {
            let isShown = shown.contains(statement.id)
            guard statement.isOurs else {
                counts.others += 1
                counts.othersShown += isShown ? 1 : 0
                continue
            }
            counts.ours += 1
            if isShown {
                counts.shown += 1
            } else if impossible.contains(statement.id) {
                counts.impossible += 1
            } else {
                counts.missing.append(statement)
                if !missing.contains(statement.id) {
                    Issue.record("[\(statement.id)] no test shows it: \(statement.text)")
                }
            }
        }
        counts.report(specification.name)
        let settled = missing.intersection(shown).filter { $0.hasPrefix(specification.name + "-") }
        if !settled.isEmpty {
            print("  shown by now, to be taken off Gaps.notYet: \(settled.sorted().joined(separator: " "))")
        }
    }

    @Test("The lists name statements that bind a server, each once; what cannot be shown is not")
    func lists() throws {
        let ours = Set(Specification.all.flatMap(\.statements).filter(\.isOurs).map(\.id))
        let impossible = Set(Gaps.cannotBe.keys)
        #expect(Gaps.notYet.subtracting(ours).sorted() == [])
        #expect(impossible.subtracting(ours).sorted() == [])
        #expect(impossible.intersection(Gaps.notYet).sorted() == [])
        for (id, reason) in Gaps.cannotBe { #expect(reason.count > 20, "[\(id)] needs a reason") }
        let shown = try Self.citationsOfTheServer().shown
        #expect(impossible.intersection(shown).sorted() == [], "a test shows them after all")
    }
}

/// How far one version is shown.
private struct Counts {
    var ours = 0
    var shown = 0
    var impossible = 0
    var missing: [Statement] = []
    /// Those that bind clients alone.
    var others = 0
    var othersShown = 0

    func report(_ name: String) {
        print(
            """
            \(name): \(ours + others) statements, \(ours) of them bind a server
              shown by a test          \(shown)
              cannot be, with a reason \(impossible)
              not yet                  \(missing.count)
              bind clients alone       \(others), \(othersShown) of them seen from the server's side
            """)
        var sections: [(name: String, numbers: [Substring])] = []
        for statement in missing {
            if sections.last?.name != statement.section { sections.append((statement.section, [])) }
            sections[sections.count - 1].numbers.append(statement.id.dropFirst(statement.section.count))
        }
        for section in sections {
            print("    \(section.name): \(section.numbers.joined(separator: " "))")
        }
    }
}

/// Where a citation counts, and where it does not.
@Suite("Citations")
struct CitationsTests {
    // Written in two halves, so that nobody takes them for citations.
    private let a = "MQTT5" + "-4.3.2-4"
    private let b = "MQTT311" + "-4.3.2-2"

    @Test(
        "the name of a test counts, on the line of @Test or the next, several in a bracket, several brackets")
    func names() {
        #expect(Citations(source: "@Test(\"[\(a)] x\") func f() {}").shown == [a])
        #expect(Citations(source: "@Test(\n    \"A1 [\(a), \(b)] \\\"x\\\"\")").shown == [a, b])
        #expect(Citations(source: "@Test(\"[\(a)] [\(b)] x\", arguments: [1])").shown == [a, b])
    }

    @Test("a comment that begins with its bracket counts")
    func comments() {
        #expect(Citations(source: "// [\(a)]").shown == [a])
        #expect(Citations(source: "    f()  // [\(a), \(b)] and so on").shown == [a, b])
    }

    @Test("other comments, other strings, sections and departures do not")
    func others() {
        for source in [
            "/// [\(a)]", "/// Not tested here: [\(a)]", "// As [\(a)] asks", "let x = \"[\(a)]\"",
            "@Suite(\"[\(a)]\")", "@Test(\"![\(a)] x\")", "// ![\(a)]", "#expect(f(), \"[\(a)]\")",
        ] {
            #expect(Citations(source: source).shown == [], "\(source)")
            #expect(Citations(source: source).mentioned == [a])
        }
        let section = Citations(source: "@Test(\"[MQTT5-4.3] x\")")
        #expect(section.shown == [] && section.mentioned == [] && section.unreadable == [])
    }

    @Test("what is neither statement nor section cannot be read")
    func unreadable() {
        #expect(Citations(source: "@Test(\"[MQTT5-4.3.2-4 … 7] x\")").unreadable.count == 1)
        #expect(Citations(source: "// [MQTT-4.3.2]").unreadable.count == 1)
    }
}
