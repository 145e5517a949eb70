/// Where something stands in a file; both count from 1.
package struct Place: Hashable, Sendable {
    package var line: Int
    package var column: Int

    package init(line: Int, column: Int) {
        self.line = line
        self.column = column
    }
}

/// One thing that is wrong with the configuration, and what to write instead.
package struct SettingsError: Hashable, Sendable, CustomStringConvertible {
    package var file: String
    /// nil when the file as a whole is meant: it is missing, or cannot be read.
    package var place: Place?
    package var wrong: String
    /// What to write instead; nil when `wrong` leaves only one thing to do.
    package var write: String?

    package init(file: String, place: Place?, wrong: String, write: String?) {
        self.file = file
        self.place = place
        self.wrong = wrong
        self.write = write
    }

    /// `FILE:LINE:COLUMN: what is wrong; write: …`, as compilers say it, so that editors can jump there.
    package var description: String {
        let whereItIs = place.map { "\(file):\($0.line):\($0.column)" } ?? file
        return "\(whereItIs): \(wrong)" + (write.map { "; write: \($0)" } ?? "")
    }
}

/// Everything that is wrong with the configuration, in the order of the file.
package struct SettingsErrors: Error, Hashable, Sendable, CustomStringConvertible {
    package var errors: [SettingsError]

    package init(_ errors: [SettingsError]) { self.errors = errors }

    /// One error a line.
    package var description: String { errors.map(\.description).joined(separator: "\n") }
}

/// Gathers what is wrong while a file is read, so that one look shows all of it.
struct Problems {
    let file: String
    private(set) var found: [SettingsError] = []

    /// A file with more errors than this is not a configuration; the rest would only scroll.
    static let countMax = 100

    init(file: String) { self.file = file }

    mutating func add(_ place: Place?, _ wrong: String, write: String? = nil) {
        guard found.count < Self.countMax else { return }
        found.append(SettingsError(file: file, place: place, wrong: wrong, write: write))
    }

    /// In the order of the file, whatever the order of reading was.
    var inOrder: SettingsErrors {
        let numbered = found.enumerated().sorted { a, b in
            let (p, q) = (a.element.place, b.element.place)
            return (p?.line ?? 0, p?.column ?? 0, a.offset) < (q?.line ?? 0, q?.column ?? 0, b.offset)
        }
        return SettingsErrors(numbered.map(\.element))
    }
}
