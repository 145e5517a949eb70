import Glibc
import Journal

/// A store that is only looked at: nothing is created, locked, written or synced, so that a gateway may be running
/// on it.
package enum ReadOnlyStore {
    /// How often a look is taken anew because a file was deleted or renamed meanwhile.
    private static let tries = 8

    /// Calls `body` with a reader of the directory `path`, and once more when a running gateway removed a file that it
    /// was about to read.
    ///
    /// - Complexity: that of `body`; blocks on the disk
    package static func look<Result>(
        at path: String, _ body: (inout DiskReader) throws(RecoveryError) -> Result
    ) throws(StoreError) -> Result {
        var left = tries
        while true {
            let directory = try DiskStore.existing(path)
            var reader = DiskReader(directory: directory)
            do {
                return try body(&reader)
            } catch .unreadable(let failure) where failure.errorNumber == ENOENT && left > 0 {
                left -= 1
            } catch {
                throw DiskStore.explained(error, path)
            }
        }
    }

    /// For each damaged range the copy that a start or a repair has put aside of it, if its bytes are the same still.
    ///
    /// - Complexity: O(files in quarantine + bytes damaged) for each; blocks on the disk
    package static func copies(
        of damaged: [RecoveryReport.ByteRange], at path: String
    ) throws(StoreError) -> [RecoveryReport.ByteRange: String] {
        guard !damaged.isEmpty else { return [:] }
        let quarantine: Quarantine
        do { quarantine = Quarantine(directory: try Directory(existing: path)) } catch {
            throw .cannot("open the state directory", path: path, error)
        }
        var copies: [RecoveryReport.ByteRange: String] = [:]
        for range in damaged { copies[range] = quarantine.copy(holding: range) }
        return copies
    }
}
