import Glibc
import Journal

/// Copies of what is damaged, and files that are not what their names say: kept for whoever wants to know what
/// became of them, up to a limit. Nothing here is needed to serve, so that nothing here may fail the start.
struct Quarantine {
    static let name = "quarantine"
    /// Beyond it the oldest go.
    static let bytesMax = 16 << 20

    private let directory: Directory
    private let bytesMax: Int

    init(directory: Directory, bytesMax: Int = Quarantine.bytesMax) {
        self.directory = directory
        self.bytesMax = bytesMax
    }

    /// Copies the damaged ranges of a report, each once, and then lets the oldest files go.
    ///
    /// - Returns: what did not work, in words.
    /// - Complexity: O(bytes damaged + files in quarantine)
    func keep(_ damaged: [RecoveryReport.ByteRange]) -> [String] {
        var problems: [String] = []
        do {
            try directory.makeSubdirectory(Self.name)
            let own = try Directory(path: directory.path + "/" + Self.name)
            let known = Set(try own.names())
            for range in damaged {
                let name = "\(range.file).\(range.bytes.lowerBound)-\(range.bytes.upperBound)"
                guard !known.contains(name) else { continue }
                do {
                    let bytes = try copy(range)
                    if !bytes.isEmpty { try own.replace(name, with: bytes) }
                } catch {
                    problems.append("cannot copy the damaged part of \(range.file): \(error)")
                }
            }
            try trim(own)
            try directory.sync()
        } catch {
            problems.append("cannot keep \(directory.path)/\(Self.name) in order: \(error)")
        }
        return problems
    }

    /// The name of a copy, within the store, in which these very bytes were put aside before; nil where there is none,
    /// also when they have changed since.
    ///
    /// - Complexity: O(files in quarantine + bytes damaged)
    func copy(holding range: RecoveryReport.ByteRange) -> String? {
        do {
            let own = try Directory(existing: directory.path + "/" + Self.name)
            let present = try copy(range)
            guard !present.isEmpty else { return nil }
            for name in try own.names().sorted() where name.hasPrefix(range.file + ".") {
                let bounds = name.dropFirst(range.file.count + 1).split(separator: "-").compactMap { Int($0) }
                guard bounds.count == 2, bounds[0] <= range.bytes.lowerBound,
                    bounds[1] >= range.bytes.upperBound
                else { continue }
                let kept = try own.openFile(name, O_RDONLY | O_NONBLOCK)
                    .read(at: range.bytes.lowerBound - bounds[0], count: present.count)
                if kept == present { return Self.name + "/" + name }
            }
        } catch {
            // What cannot be looked up is not known to be there.
        }
        return nil
    }

    /// Moves files there that are not what their names say.
    ///
    /// - Returns: what did not work, in words.
    func putAside(_ names: [String]) -> [String] {
        guard !names.isEmpty else { return [] }
        var problems: [String] = []
        for name in names {
            do {
                try directory.makeSubdirectory(Self.name)
                try move(name)
            } catch {
                problems.append("cannot put \(directory.path)/\(name) into \(Self.name)/: \(error)")
            }
        }
        guard problems.count < names.count else { return problems }
        do {
            try directory.syncSubdirectory(Self.name)
            try directory.sync()
        } catch {
            problems.append("cannot keep \(directory.path)/\(Self.name) in order: \(error)")
        }
        return problems
    }

    /// What went there before under the same name may be a directory, in whose place nothing can be put.
    private func move(_ name: String) throws(SystemError) {
        for number in 1..<10 {
            do {
                return try directory.rename(
                    name, to: Self.name + "/" + name + (number > 1 ? ".\(number)" : ""))
            } catch {
                switch error.number {
                case EISDIR, ENOTEMPTY, EEXIST: continue
                case ENOTDIR where number < 9: continue
                default: throw error
                }
            }
        }
        throw SystemError(number: EEXIST)
    }

    /// Pages that the disk refuses to read are zeros.
    private func copy(_ range: RecoveryReport.ByteRange) throws(SystemError) -> [UInt8] {
        let file = try directory.openFile(range.file, O_RDONLY)
        let end = min(range.bytes.upperBound, try file.size(), range.bytes.lowerBound + bytesMax)
        var bytes: [UInt8] = []
        var offset = range.bytes.lowerBound
        while offset < end {
            let count = min(pageBytes, end - offset)
            do { bytes += try file.read(at: offset, count: count) } catch {
                bytes += repeatElement(0, count: count)
            }
            offset += count
        }
        return bytes
    }

    private func trim(_ own: Directory) throws(SystemError) {
        var files: [(age: Int, name: String, bytes: Int)] = []
        for name in try own.names() {
            let facts = try own.facts(of: name)
            files.append((facts.modifiedSeconds, name, facts.bytes))
        }
        var total = files.reduce(0) { $0 + $1.bytes }
        for file in files.sorted(by: { ($0.age, $0.name) < ($1.age, $1.name) }) where total > bytesMax {
            try own.remove(file.name)
            total -= file.bytes
        }
        try own.sync()
    }
}
