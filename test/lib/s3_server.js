// An S3 server: s3rver, with what it lacks of multipart uploads, namely AbortMultipartUpload,
// and the refusal of what does not exist and of an ETag that is not the part's.
//
//     node s3_server.js PORT FOLDER BUCKET

const fs = require('fs')
const http = require('http')
const path = require('path')
const S3rver = require('s3rver')
const S3Error = require('s3rver/lib/models/error')

const [port, folder, bucket] = process.argv.slice(2)
const server = new S3rver({ directory: folder, silent: true, configureBuckets: [{ name: bucket }] })
const uploadFolder = id => path.join(server.store.getResourcePath(bucket, undefined, 'uploads'), id)

const putObjectMultipart = server.store.putObjectMultipart.bind(server.store)
server.store.putObjectMultipart = async (bucket, id, parts) => {
  for (const { number, etag } of parts) {
    const md5 = path.join(uploadFolder(id), `${number}.md5`)
    if (!fs.existsSync(md5) || fs.readFileSync(md5, 'utf8') !== etag) throw new S3Error('InvalidPart', 'there is no such part')
  }
  return putObjectMultipart(bucket, id, parts)
}

server.configureBuckets().then(() => http.createServer((request, response) => {
  const id = new URL(request.url, 'http://127.0.0.1').searchParams.get('uploadId')
  if (id !== null && (!/^\w+$/.test(id) || !fs.existsSync(uploadFolder(id)))) {
    response.writeHead(404, { 'Content-Type': 'application/xml', Connection: 'close' })
    response.end('<?xml version="1.0"?><Error><Code>NoSuchUpload</Code><Message>there is none</Message></Error>')
  } else if (id !== null && request.method === 'DELETE') {
    fs.rmSync(uploadFolder(id), { recursive: true })
    response.writeHead(204).end()
  } else {
    server.callback()(request, response)
  }
}).listen(port, '127.0.0.1'))
