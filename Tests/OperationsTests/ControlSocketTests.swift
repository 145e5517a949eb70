import Foundation
import NIOCore
import NIOPosix
import Testing

@testable import Operations

@Suite("The control socket's words")
struct AdminCommandTests {
    @Test(
        "A command is a line, both ways",
        arguments: [
            (AdminCommand.reload, "reload"), (.clients, "clients"), (.profiles, "profiles"),
            (.replay(uplink: "cloud", numbers: nil), "replay cloud all"),
            (
                .purge(uplink: "c-2", numbers: [1, 18_446_744_073_709_551_615]),
                "purge c-2 1 18446744073709551615"
            ),
        ])
    func bothWays(command: AdminCommand, line: String) {
        #expect(command.line == line)
        #expect(AdminCommand(line: Array(line.utf8)) == command)
    }

    @Test(
        "Anything else is no command",
        arguments: [
            "", " ", "reload now", "profiles x", "replay", "replay cloud", "purge cloud 1 x",
            "purge cloud -1", "purge cloud all 1",
            "RELOAD", "replay cloud 18446744073709551616",
        ])
    func noCommand(line: String) {
        #expect(AdminCommand(line: Array(line.utf8)) == nil)
    }

    @Test("An answer comes back as it was, and no line end in it can be taken for an end")
    func answers() {
        for answer in [
            AdminAnswer(isGood: true, lines: []), AdminAnswer(isGood: true, lines: ["one", "ok"]),
            .failed("no"),
        ] {
            #expect(AdminAnswer(answer.bytes) == answer)
        }
        #expect(AdminAnswer(AdminAnswer.failed("a\nok").bytes) == .failed("a ok"))
        for broken in ["", "ok", "- a\n", "a\nok\n", "- a\nmaybe\n"] {
            #expect(AdminAnswer(Array(broken.utf8)) == nil, "\(broken)")
        }
    }
}

@Suite("The control socket", .serialized)
struct ControlSocketTests {
    @Test("A command reaches the gateway, and the answer whoever asked; only the owner may ask")
    func asks() throws {
        let rig = try Rig { command, reply in
            reply(AdminAnswer(isGood: command == .reload, lines: ["heard \(command.line)"]))
        }
        defer { rig.end() }
        #expect(try rig.path.ask(.reload) == AdminAnswer(isGood: true, lines: ["heard reload"]))
        #expect(
            try rig.path.ask(.purge(uplink: "cloud", numbers: [7, 8])) == .failed("heard purge cloud 7 8"))
        var status = stat()
        #expect(stat(rig.path.description, &status) == 0)
        #expect(status.st_mode & 0o777 == 0o600)
    }

    @Test("An answer may come later")
    func later() throws {
        let rig = try Rig { _, reply in
            // On the loop, as everything that answers is.
            let reply = NIOLoopBound(reply, eventLoop: Rig.loop)
            Rig.loop.scheduleTask(in: .milliseconds(200)) {
                reply.value(AdminAnswer(isGood: true, lines: []))
            }
        }
        defer { rig.end() }
        #expect(try rig.path.ask(.reload) == AdminAnswer(isGood: true, lines: []))
    }

    @Test("What is no command, or too long, is refused and never reaches the gateway")
    func refuses() throws {
        let rig = try Rig { _, reply in
            Issue.record("it did")
            reply(.failed(""))
        }
        defer { rig.end() }
        let hint = "a command is reload, or replay or purge with an uplink and numbers or all"
        #expect(AdminAnswer(rig.send("format c:\n")) == .failed(hint))
        #expect(AdminAnswer(rig.send("\u{0}\u{1}\n")) == .failed(hint))
        #expect(
            AdminAnswer(rig.send(String(repeating: "x", count: AdminLimits.lineBytesMax + 1)))
                == .failed("the line is too long"))
        #expect(rig.send("reload", closes: true) == [], "without a line end there is no command")
    }

    @Test("More connections than there is room for are told so, and room comes back")
    func bounded() throws {
        let rig = try Rig { _, reply in reply(AdminAnswer(isGood: true, lines: [])) }
        defer { rig.end() }
        let idle = (1...AdminLimits.connectionsMax).map { _ in rig.connect() }
        // Each is counted once it was accepted: they are accepted in order, and this one last.
        #expect(AdminAnswer(rig.send("reload\n")) == .failed("too many commands at once: try again"))
        for descriptor in idle { close(descriptor) }
        let isRoom = (1...100).contains { _ in
            usleep(20_000)
            return (try? rig.path.ask(.reload).isGood) == true
        }
        #expect(isRoom)
    }

    @Test("A file that an earlier process left is replaced; one that is no socket is not")
    func stale() throws {
        let rig = try Rig { _, reply in reply(AdminAnswer(isGood: true, lines: [])) }
        rig.end(removes: false)
        let second = try Rig(at: rig.directory) { _, reply in reply(AdminAnswer(isGood: true, lines: ["2"])) }
        #expect(try second.path.ask(.reload).lines == ["2"])
        second.end()
        #expect(!FileManager.default.fileExists(atPath: second.path.description), "removed at the end")
        try "mine".write(toFile: second.path.description, atomically: true, encoding: .utf8)
        #expect(throws: ControlFailure.self) { close(try second.path.bind()) }
        #expect(try String(contentsOfFile: second.path.description, encoding: .utf8) == "mine")
    }

    @Test("Where no gateway runs, or the path is too long, that is said")
    func nobody() throws {
        let path = ControlPath(state: "/tmp/nothing-\(UUID().uuidString)")
        #expect(throws: ControlFailure("no gateway runs on this state directory (\(path) does not answer)")) {
            try path.ask(.reload)
        }
        #expect(throws: ControlFailure.self) {
            try ControlPath(state: "/tmp/" + String(repeating: "a", count: 100)).ask(.reload)
        }
    }

    /// A socket in a directory of its own, on a loop of its own.
    private final class Rig {
        static let loop = MultiThreadedEventLoopGroup.singleton.next()
        let directory: String
        let path: ControlPath
        private let socket: NIOLoopBoundBox<ControlSocket?>

        init(
            at directory: String = "/tmp/control-\(UUID().uuidString.prefix(8))",
            answer: @escaping @Sendable (AdminCommand, @escaping (AdminAnswer) -> Void) -> Void
        ) throws {
            self.directory = directory
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
            let path = ControlPath(state: directory)
            self.path = path
            let socket = NIOLoopBoundBox<ControlSocket?>.makeEmptyBox(
                valueType: ControlSocket.self, eventLoop: Self.loop)
            self.socket = socket
            try Self.loop.submit {
                let made = ControlSocket(path: path, loop: Self.loop) { command, reply in
                    answer(command, reply)
                }
                made.open { Issue.record("\($0)") }
                socket.value = made
            }.wait()
        }

        /// - Parameter removes: false for what a process leaves that was killed: a socket nobody listens at.
        func end(removes: Bool = true) {
            let socket = self.socket
            do {
                try Self.loop.submit {
                    socket.value?.close()
                    socket.value = nil
                }.wait()
                if !removes { close(try path.bind()) }
            } catch {
                Issue.record("\(error)")
            }
        }

        deinit {
            do { try FileManager.default.removeItem(atPath: directory) } catch {}
        }

        /// A connection that says nothing.
        func connect() -> CInt {
            let descriptor = socketDescriptor()
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.description.utf8) }
            let connected = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
            #expect(connected == 0)
            return descriptor
        }

        /// Sends raw text and reads to the end.
        func send(_ text: String, closes: Bool = false) -> [UInt8] {
            let descriptor = connect()
            defer { close(descriptor) }
            let bytes = Array(text.utf8)
            _ = Glibc.send(descriptor, bytes, bytes.count, CInt(MSG_NOSIGNAL))
            if closes { shutdown(descriptor, CInt(SHUT_WR)) }
            var answer: [UInt8] = []
            var chunk = [UInt8](repeating: 0, count: 4096)
            while case let count = recv(descriptor, &chunk, chunk.count, 0), count > 0 {
                answer += chunk[..<count]
            }
            return answer
        }

        private func socketDescriptor() -> CInt {
            let descriptor = Glibc.socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0)
            var patience = timeval(tv_sec: 20, tv_usec: 0)
            setsockopt(
                descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
            return descriptor
        }
    }
}
