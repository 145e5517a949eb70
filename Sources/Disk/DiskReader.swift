import Glibc
import Journal

/// What recovery sees of a directory.
package struct DiskReader: StoreReader {
    let directory: Directory
    private var last: (name: String, file: File)?

    init(directory: Directory) { self.directory = directory }

    package mutating func names() throws(StoreReadFailure) -> [String] {
        do { return try directory.names() } catch {
            throw StoreReadFailure(name: ".", errorNumber: error.number)
        }
    }

    package mutating func size(of name: String) throws(StoreReadFailure) -> Int {
        do { return try file(name).size() } catch {
            throw StoreReadFailure(name: name, errorNumber: error.number)
        }
    }

    package mutating func read(_ name: String, at offset: Int, count: Int) throws(StoreReadFailure) -> [UInt8]
    {
        do { return try file(name).read(at: offset, count: count) } catch {
            throw StoreReadFailure(name: name, errorNumber: error.number)
        }
    }

    /// Syncs, and then has the next read come from the disk: after a failed sync in an earlier process the
    /// cache may show what the disk does not have.
    ///
    /// A sync that fails here has let go of what could not be written. With the cache dropped nothing of it is believed,
    /// and a second sync speaks of what the disk has. Where nothing can be written, what can be read is what there is.
    package mutating func makeDurable(_ name: String) throws(StoreReadFailure) {
        do {
            let file = try file(name)
            do { try file.sync() } catch {
                file.forgetCache()
                if error.number != EROFS { try file.sync() }
            }
            file.forgetCache()
        } catch {
            throw StoreReadFailure(name: name, errorNumber: error.number)
        }
    }

    package mutating func makeDirectoryDurable() throws(StoreReadFailure) {
        do { try directory.sync() } catch {
            guard error.number == EROFS else {
                throw StoreReadFailure(name: ".", errorNumber: error.number)
            }
        }
    }

    private mutating func file(_ name: String) throws(SystemError) -> File {
        if let last, last.name == name { return last.file }
        // What is no file, but for instance a pipe, must not be waited for.
        let file = try directory.openFile(name, O_RDONLY | O_NONBLOCK)
        last = (name, file)
        return file
    }
}
