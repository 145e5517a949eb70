import Foundation

/// The text of the package: where it lies, its files, and their code without comments and strings.
enum SourceTree {
    /// The folder of Package.swift.
    static let root = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    struct File {
        /// From the root, with slashes.
        let path: String
        let lines: [String]
        /// `lines` less comments and the contents of string literals.
        let code: [String]

    }

    /// The Swift files under a folder, in the order of their paths; none when it is not there.
    static func swiftFiles(under folder: String) -> [File] {
        let base = root.appendingPathComponent(folder)
        let found = FileManager.default.enumerator(at: base, includingPropertiesForKeys: nil)
        var files: [File] = []
        while let url = found?.nextObject() as? URL {
            guard url.pathExtension == "swift", let text = try? String(contentsOf: url, encoding: .utf8)
            else {
                continue
            }
            let path = url.resolvingSymlinksInPath().path
            let lines = text.components(separatedBy: "\n")
            files.append(
                File(path: String(path.dropFirst(root.path.count + 1)), lines: lines, code: codeOnly(lines)))
        }
        return files.sorted { $0.path < $1.path }
    }

    /// The folders right under another one.
    static func folders(in folder: String) -> [String] {
        let all =
            (try? FileManager.default.contentsOfDirectory(atPath: root.appendingPathComponent(folder).path))
            ?? []
        return all.filter { !$0.hasPrefix(".") }.sorted()
    }

    /// Line by line; a multi-line string or block comment is taken for code, which only makes the rules
    /// stricter.
    private static func codeOnly(_ lines: [String]) -> [String] {
        lines.map { line in
            var code = ""
            var isInString = false
            var previous: Character = " "
            for character in line {
                if character == "\"", previous != "\\" {
                    isInString.toggle()
                    code.append(character)
                } else if !isInString {
                    if character == "/", previous == "/" {
                        code.removeLast()
                        break
                    }
                    code.append(character)
                }
                previous = character == "\\" && previous == "\\" ? " " : character
            }
            return code
        }
    }
}

extension SourceTree.File {
    /// The numbers and texts of the lines whose code matches.
    func lines(matching pattern: Regex<AnyRegexOutput>) -> [(number: Int, text: String)] {
        code.indices.filter { code[$0].firstMatch(of: pattern) != nil }.map { ($0 + 1, lines[$0]) }
    }

    /// Whether the line or the one before it carries a comment.
    func isExplained(_ number: Int) -> Bool {
        lines[number - 1].contains("//") || (number > 1 && lines[number - 2].contains("//"))
    }
}
