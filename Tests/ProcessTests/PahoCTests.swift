import Foundation
import Testing
import Workbench

/// Sessions of Eclipse Paho's C library, which C programs and many devices speak with. The steps are in
/// PahoC/session_story.c, which is compiled here with the compiler that comes with Swift.
@Suite("Paho C: sessions", .serialized)
struct PahoCTests {
    static let versions = ["3.1.1", "5"]

    @Test("messages of each QoS both ways, retained messages and Wills", arguments: versions)
    func exchanges(version: String) throws {
        let story = try Story(version)
        try story.tell("exchange")
        try story.tell("retained")
        try story.tell("will")
        #expect(story.gateway.stop() == .exited(0))
    }

    @Test("the session and its messages survive SIGKILL", arguments: versions)
    func survivesKill(version: String) throws {
        let story = try Story(version)
        try story.tell("leave")
        story.gateway.kill()
        try story.gateway.start()
        try story.tell("resume")
        #expect(story.gateway.stop() == .exited(0))
    }

    @Test("every property of a message comes back as it was sent")
    func properties() throws {
        let story = try Story("5")
        try story.tell("properties")
        #expect(story.gateway.stop() == .exited(0))
    }
}

/// The program, and a gateway that runs.
private struct Story {
    let gateway: Gateway
    private let rig: Rig
    private let version: String
    private let program: String

    init(_ version: String) throws {
        self.version = version
        rig = try Rig()
        program = rig.place.file("session_story")
        let source = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("PahoC/session_story.c").path
        try rig.run(
            try Self.compiler(),
            [
                "-std=c11", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror", "-o", program, source,
                "-lpaho-mqtt3c",
            ])
        gateway = try rig.gateway()
        try gateway.start()
    }

    func tell(_ step: String) throws {
        try rig.run(program, ["\(gateway.port)", version, step, "tide-user"])
    }

    /// clang stands beside swift.
    private static func compiler() throws -> String {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin"
        let places = path.split(separator: ":").map { "\($0)/clang" }
        guard let found = places.first(where: { access($0, X_OK) == 0 }) else {
            throw WorkbenchError("clang is not on the PATH")
        }
        return found
    }
}
