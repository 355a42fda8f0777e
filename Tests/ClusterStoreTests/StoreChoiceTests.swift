import ClusterStore
import Logging
import Testing

@Suite struct StoreChoiceTests {
    @Test func `a setting names a store`() throws {
        #expect(try StoreChoice("none") == .none)
        #expect(try StoreChoice("sqlite:/var/a b.sqlite") == .sqlite(path: "/var/a b.sqlite"))
        #expect(
            try StoreChoice("etcd:https://a:2379,http://b:1/")
                == .etcd(endpoints: ["https://a:2379", "http://b:1"]))
    }

    @Test(arguments: ["", "sqlite", "sqlite:", "etcd:", "etcd:a:2379", "etcd:https://", "redis:x"])
    func `what is no store is refused with what to do`(text: String) {
        let error = #expect(throws: StoreError.self) { try StoreChoice(text) }
        #expect(error?.description.contains("give none, sqlite:PATH or etcd:") == true)
    }

    @Test func `TLS files that can't be read are named`() throws {
        var options = EtcdStore.Options()
        options.authority = "/nowhere/ca.pem"
        let error = #expect(throws: StoreError.self) {
            try EtcdStore(
                endpoints: ["https://127.0.0.1:1"], options: options,
                logger: Logger(label: "test"))
        }
        #expect(error?.description.contains("--store-ca") == true)
    }
}
