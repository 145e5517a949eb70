import Foundation
import Testing

@testable import mutate

/// `make mutate` breaks each rule of durability in a copy of the sources; here is checked that it still finds what to
/// break.
@Suite("Mutants")
struct MutantTests {
    private static func texts() throws -> [String: String] {
        let files = Set(Mutant.all.flatMap { $0.edits.map(\.file) })
        return try files.reduce(into: [:]) { texts, file in
            texts[file] = try String(
                contentsOf: SourceTree.root.appendingPathComponent(file), encoding: .utf8)
        }
    }

    @Test("What each mutant changes stands in its file exactly once")
    func applicable() throws {
        var texts = try Self.texts()
        try Workshop.rewrite(&texts, Mutant.all)
        for mutant in Mutant.all {
            for edit in mutant.edits { #expect(edit.instead.contains("MUTANT"), "\(mutant.name)") }
        }
        for (file, text) in texts { #expect(!text.contains("MUTANT"), "\(file)") }
    }

    @Test("Every rule of the journal's design has a mutant, and every name is its own")
    func complete() {
        let names = Mutant.all.map(\.name)
        #expect(Set(names).count == names.count)
        for rule in (1...12).map({ "A\($0)" }) + (1...7).map({ "E\($0)" }) {
            #expect(names.contains { $0 == rule || $0.hasPrefix("\(rule)-") }, "\(rule)")
        }
    }

    @Test("A mutant whose text is gone, or stands there twice, is a mistake", arguments: ["", "a b a"])
    func mistaken(text: String) {
        var texts = ["x.swift": text]
        #expect(throws: Mistake.self) {
            try Workshop.rewrite(&texts, [Mutant("X", "x", .init("x.swift", "a", "MUTANT"))])
        }
    }

    @Test("Mutants of one file are told apart when it runs")
    func rewritten() throws {
        var texts = ["x.swift": "a b"]
        try Workshop.rewrite(
            &texts,
            [
                Mutant("X", "x", .init("x.swift", "a", "MUTANT ? c : a")),
                Mutant("Y", "y", .init("x.swift", "b", "MUTANT")),
            ])
        #expect(texts["x.swift"] == "import MQTT\n(Mutation.chosen == 1) ? c : a (Mutation.chosen == 2)")
    }

    @Test("The shipped sources have no such choice")
    func notShipped() {
        for file in SourceTree.swiftFiles(under: "Sources") {
            #expect(!file.lines.contains { $0.contains("Mutation.chosen") }, "\(file.path)")
        }
    }
}
